"""Batches made one ahead of the training step, in a thread and, on CUDA, on a stream of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

Columns = dict[str, Any]
"""A batch: arrays and tensors of B rows by name."""


def ahead(batches: Iterator[Columns], make: Callable[[Columns], Columns], device: torch.device) -> Iterator[Columns]:
    """Yield what is made of each batch, in order, while the next one is fetched and made.

    On CUDA what `make` queues runs on another stream than the training step, beside it. The stream that takes a batch waits for
    it on the device; the process does not wait.

    Args:
        batches: What comes in.
        make: Called in a thread, where operations are queued on the other stream.
        device: Where it makes tensors.
    """
    lane = _Lane(device)

    def make_next() -> tuple[Columns, torch.cuda.Event | None] | None:
        for batch in batches:
            with lane.queued():
                return make(batch), lane.mark()
        return None

    with ThreadPoolExecutor(1, "views") as pool:
        following = pool.submit(make_next)
        while (made := following.result()) is not None:
            following = pool.submit(make_next)
            yield lane.handed_over(*made)


class _Lane:
    """A stream beside the one that trains; without CUDA, nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # for what `make` uses

    def queued(self) -> AbstractContextManager[object]:
        """Return the context in which operations are queued on this stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def mark(self) -> torch.cuda.Event | None:
        """Return an event after everything that was queued so far."""
        return None if self._stream is None else self._stream.record_event()

    def handed_over(self, batch: Columns, made: torch.cuda.Event | None) -> Columns:
        """Return a batch to the stream that is current here, which waits for it."""
        if made is not None:
            training = torch.cuda.current_stream(self._device)
            training.wait_event(made)
            for tensor in batch.values():
                if isinstance(tensor, Tensor):
                    tensor.record_stream(training)  # its memory is not reused before that stream has used it
        return batch
