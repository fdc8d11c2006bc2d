"""What shuts out a driver that has lost its lock, in its own process and in those of its workers; see `locking.lock`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ray_kplm.errors import RunError, StorageError
from ray_kplm.locking.claims import read_claim, read_claims
from ray_kplm.storage import Folder, Guard

_PATROL_S = 2.0
"""Between two looks of a worker at the claim of its driver."""
_TORN_READS, _TORN_PAUSE_S = 5, 0.05
"""Times that a claim is read again that is just being rewritten."""


@dataclass(frozen=True)
class Fence:
    """The right to change a locked folder, and what finds out that it is lost. It is the `storage.Guard` of the folder."""

    folder: Folder
    """The locked folder, which itself has no guard."""
    name: str
    """File of the claim."""
    token: str
    """What identifies the driver. It stands in its manifests, and in the name of the folder of its checkpoints."""

    def loss(self) -> str:
        """Read the claim from storage, and return how it was lost; "" if it is there."""
        for _ in range(_TORN_READS):
            claim = read_claim(self.folder, self.name)
            if claim is None:
                break
            if claim.values is not None:
                return "" if claim.token == self.token else self.describe_loss()
            time.sleep(_TORN_PAUSE_S)
        return self.describe_loss()

    def check(self, change: str = "", path: str = "") -> None:
        """Raise RunError if the lock is lost. See `storage.Guard.check`."""
        if loss := self.loss():
            raise RunError(stopping(self.folder, loss))

    def describe_loss(self) -> str:
        """Return how the lock was lost, of which it is known that it is."""
        for claim in read_claims(self.folder):
            if self.token in claim.replaced:
                return f"taken over by {claim}, which saw no heartbeat of this process"
        return f"{self.name}, the claim of this process, was removed: by another driver that took over, or by hand"


def stopping(folder: Folder, loss: str) -> str:
    """Return the line about a lock that was lost."""
    return f"{folder}: {loss}; this driver stops, so that two do not work on one folder"


class Patrol:
    """Looks every few seconds, in a thread, whether the driver that a worker works for still holds its lock.

    A context manager. Storage that does not answer shows nothing, and does not hold the worker up.
    """

    def __init__(self, guard: Guard | None, on_loss: Callable[[], None] = lambda: None) -> None:
        """Look when the block begins.

        Args:
            guard: that of the folder which the worker writes to; None: nobody locked it.
            on_loss: called in the thread when the lock is found to be lost.
        """
        self._guard, self._on_loss = guard, on_loss
        self._loss: RunError | None = None
        self._stop = threading.Event()

    def check(self) -> None:
        """Raise RunError if the lock is known to be lost."""
        if self._loss is not None:
            raise self._loss

    def __enter__(self) -> Patrol:
        if self._guard is not None:
            threading.Thread(target=self._look, name="kplm-patrol", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()

    def _look(self) -> None:
        while self._guard is not None and not self._stop.wait(_PATROL_S):
            try:
                self._guard.check()
            except RunError as error:
                self._loss = error
                self._on_loss()
                return
            except (OSError, StorageError):
                continue


def end_process() -> None:
    """End this process as if it were killed: a worker that does nothing but work for a driver that lost its lock."""
    os._exit(1)
