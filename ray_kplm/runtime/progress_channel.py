"""From workers to the driver: a small actor that holds what is new since the driver last asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from ray_kplm.runtime.session import here

_POLL_S = 0.5
_PATIENCE_S = 60.0

MetricsCallback = Callable[[int, dict[str, float]], None]
"""Called as a training goes on: iterations done, and the mean metrics of the last ones."""


class ProgressChannel:
    """Messages of the workers, in the order of how far they are."""

    def __init__(self) -> None:
        self._messages: dict[Any, Any] = {}
        self._lock = threading.Lock()  # an actor may be asked while it is at work

    def post(self, done: Any, message: Any) -> None:
        with self._lock:
            self._messages[done] = message  # what is repeated after a failure replaces itself

    def drain(self) -> list[tuple[Any, Any]]:
        with self._lock:
            messages, self._messages = self._messages, {}
        return sorted(messages.items())


_ProgressChannelActor: Any = ray.remote(num_cpus=0)(ProgressChannel)
"""Made once: Ray keeps every actor class that it is given, and there is a channel a round (Ray 2.60)."""


@contextmanager
def open_channel(callback: Callable[[Any, Any], None]) -> Iterator[Any]:
    """A channel of its own for the block, whose messages reach the callback.

    It lives on the driver's node, so that a worker's node takes no news with it.
    """
    channel = _ProgressChannelActor.options(scheduling_strategy=here()).remote()
    try:
        with forward_progress(channel, callback):
            yield channel
    finally:
        ray.kill(channel)


@contextmanager
def forward_progress(channel: Any, callback: Callable[[Any, Any], None]) -> Iterator[None]:
    """Messages of an actor that is a channel reach the callback while the block runs; news that is lost with the actor is not
    worth the work it tells of."""
    stop = threading.Event()

    def deliver() -> None:
        try:
            news = ray.get(channel.drain.remote(), timeout=_PATIENCE_S)
        except RayError:
            return
        for done, message in news:
            callback(done, message)

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
