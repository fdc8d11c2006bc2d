"""Copies to and from the training device, which the device's queue does not wait for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device.

    A copy to CUDA starts from pinned memory. From other memory it would first wait for all that the stream has to do, and the
    process could not queue the next step meanwhile (CUDA Runtime API, "API synchronization behavior").
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def copy_to_host(tree: Any, device: torch.device) -> Callable[[], Any]:
    """Begin a copy of tensors to the host's memory; return what waits for the copy and returns it.

    Later changes of the tensors are not in the copy. One from CUDA is queued, into pinned memory, and the process goes on.

    Args:
        tree: nested dictionaries and lists.
        device: where its tensors are, apart from some that may be on the CPU.
    """
    copied = _copied(tree)
    if device.type != "cuda":
        return lambda: copied
    done = torch.cuda.current_stream(device).record_event()

    def wait() -> Any:
        done.synchronize()
        return copied

    return wait


def _copied(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        source = tree.detach()
        if not source.is_cuda:
            return source.to("cpu", copy=True)
        return torch.empty_like(source, device="cpu", pin_memory=True).copy_(source, non_blocking=True)
    if isinstance(tree, dict):
        copied = copy.copy(tree)  # with the attributes that PyTorch gives a state
        copied.update((name, _copied(value)) for name, value in tree.items())
        return copied
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree
