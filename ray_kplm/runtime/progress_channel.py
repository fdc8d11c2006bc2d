"""Send messages from workers to the driver: a small actor buffers them, and a thread of the driver polls it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from ray_kplm.runtime.session import on_this_node

_POLL_S = 0.5
_DRAIN_TIMEOUT_S = 60.0

MetricsCallback = Callable[[int, dict[str, float]], None]
"""Called during a training with the number of iterations done and the mean metrics of the last ones."""


class ProgressChannel:
    """Buffer of messages, ordered by progress. Base class of actors that report progress to the driver."""

    def __init__(self) -> None:
        self._messages: dict[Any, Any] = {}
        self._lock = threading.Lock()  # `drain` may be called while another method of the actor runs

    def send(self, progress: Any, message: Any) -> None:
        """Add a message. It replaces an earlier one of the same progress, as after a restarted worker repeats an iteration.

        Args:
            progress: what messages are ordered by, such as the number of iterations done.
            message: passed to the callback.
        """
        with self._lock:
            self._messages[progress] = message

    def drain(self) -> list[tuple[Any, Any]]:
        """Return the messages since the last call as (progress, message), in ascending order of progress."""
        with self._lock:
            messages, self._messages = self._messages, {}
        return sorted(messages.items())


_ProgressChannelActor: Any = ray.remote(num_cpus=0)(ProgressChannel)
"""Defined once: Ray keeps every actor class that it exports, and each round opens a channel (Ray 2.60)."""


@contextmanager
def open_channel(callback: Callable[[Any, Any], None]) -> Iterator[Any]:
    """Yield the actor handle of a new channel, and call `callback(progress, message)` for its messages in the block.

    The actor runs on the driver's node, so that no message is lost with a worker's node.
    """
    channel = _ProgressChannelActor.options(scheduling_strategy=on_this_node()).remote()
    try:
        with forward_progress(channel, callback):
            yield channel
    finally:
        ray.kill(channel)


@contextmanager
def forward_progress(channel: Any, callback: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call `callback(progress, message)` for the messages of a `ProgressChannel` actor while the block runs.

    Messages that are lost with the actor are ignored: they do not stop the work that they report on.
    """
    stop = threading.Event()

    def deliver() -> None:
        try:
            messages = ray.get(channel.drain.remote(), timeout=_DRAIN_TIMEOUT_S)
        except RayError:
            return
        for progress, message in messages:
            callback(progress, message)

    def poll() -> None:
        while not stop.wait(_POLL_S):
            deliver()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        deliver()
