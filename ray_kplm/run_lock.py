"""A lock on a folder that admits one driver at a time, on any storage.

Each driver writes a claim of its own, `.driver-<token>.json`. It holds the lock if a listing after that shows no other claim:
of two drivers that come at the same time, at least one sees the other's claim. So no exclusive creation is needed, which object
stores lack.

No clock is compared either. A holder increases the counter `beat` in its claim every few seconds, and a waiting driver measures
with its own clock for how long the counter has stood still. If the holder ran on the same machine, its process is looked up
instead. The claim of a killed holder stays in the folder, and the next driver takes over from it.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import psutil

from ray_kplm.errors import RunError, StorageError
from ray_kplm.storage import Folder

BEAT_S = 5.0
"""Between two heartbeats of a holder, seconds."""
PATIENCE_S = 30.0
"""A holder on another machine without a heartbeat for this many seconds counts as dead."""
_PREFIX, _SUFFIX = ".driver-", ".json"
_ATTEMPTS = 20
_POLL_S = 1.0

Claim = dict[str, Any]


class FolderLock:
    """A lock that this process holds until `release`, or until another driver takes it over after missing heartbeats."""

    def __init__(self, folder: Folder, claim: Claim, beat_s: float) -> None:
        """Start the heartbeat.

        Args:
            folder: the locked folder.
            claim: this process's claim in it.
            beat_s: between two heartbeats, seconds.
        """
        self._folder, self._claim, self._beat_s = folder, claim, beat_s
        self._loss = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether another driver took the lock over."""
        return bool(self._loss)

    def check(self) -> None:
        """Raise RunError if the lock is lost: another driver took over while this process was suspended."""
        if self.is_lost:
            raise RunError(f"{self._folder}: {self._loss}; this driver stops, so that two do not work on one run")

    def release(self) -> None:
        """Remove the claim."""
        self._stop.set()
        self._thread.join()
        with suppress(OSError, StorageError):  # if it cannot be removed, the next driver takes over from it
            self._folder.delete_file(_name(self._claim))

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._beat_s):
            with suppress(
                OSError, StorageError
            ):  # storage that is full or fails for a while does not end the heartbeat
                self._loss = self._find_loss(_claims(self._folder))
                if self._loss:
                    return
                self._claim["beat"] += 1
                _write(self._folder, self._claim)

    def _find_loss(self, claims: list[Claim]) -> str:
        """Return how the lock was lost, "" if it is held."""
        token = self._claim["token"]
        for claim in claims:
            if token in claim["replaces"]:
                return f"taken over by {_describe(claim)}, which saw no heartbeat of this process"
        return "" if any(claim["token"] == token for claim in claims) else f"{_name(self._claim)} was removed"


@contextmanager
def lock_folder(
    folder: Folder, *, beat_s: float = BEAT_S, patience_s: float = PATIENCE_S, log: Callable[[str], None] | None = None
) -> Iterator[FolderLock]:
    """Hold the lock of a folder while the block runs.

    Args:
        folder: the folder, which need not exist.
        beat_s: between two heartbeats, seconds.
        patience_s: how long to wait for a heartbeat of a holder on another machine, seconds.
        log: gets a line when this wait begins; standard error by default.

    Raises:
        RunError: another driver holds the lock; the message says which.
    """
    lock = FolderLock(folder, _acquire(folder, patience_s, log or _print), beat_s)
    try:
        yield lock
    finally:
        lock.release()


def _acquire(folder: Folder, patience_s: float, log: Callable[[str], None]) -> Claim:
    claim: Claim = {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "held": False,
        "beat": 0,
        "replaces": [],
    }
    for _ in range(_ATTEMPTS):
        for other in _claims(folder):
            if _is_alive(folder, other, patience_s, log):
                if other["held"]:
                    raise RunError(_refusal(folder, other, patience_s))
            else:
                claim["replaces"].append(other["token"])
                folder.delete_file(_name(other))
        _write(folder, claim)
        if len(_claims(folder)) == 1:
            claim["held"] = True
            _write(folder, claim)
            return claim
        folder.delete_file(_name(claim))  # another driver came at the same moment: both retry after a random pause
        time.sleep(random.uniform(0.05, 0.5))
    raise RunError(f"{folder}: several drivers claim it at the same time; start one of them")


def _is_alive(folder: Folder, claim: Claim, patience_s: float, log: Callable[[str], None]) -> bool:
    """Return whether the process of a claim is running, or may be. Waits up to `patience_s` if it is on another machine."""
    if claim["machine"] == _machine():
        known = _is_process_alive(claim["pid"], claim["started"])
        if known is not None:
            return known
    deadline = time.monotonic() + patience_s
    logged = not claim["held"]
    while time.monotonic() < deadline:
        if not logged:
            log(f"{folder}: claimed by {_describe(claim)}; waiting up to {patience_s:.0f} s for a heartbeat")
            logged = True
        time.sleep(min(_POLL_S, patience_s / 10))
        now = _read(folder, _name(claim))
        if now is None:
            return False
        if (now["beat"], now["held"]) != (claim["beat"], claim["held"]):
            claim.update(now)
            return True
    return False


def _is_process_alive(pid: int, started: float) -> bool | None:
    """Return whether a process of this machine is running; None if another process may have its number."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return True if abs(process.create_time() - started) < 1 else None
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return None


def _machine() -> str:
    """Return what identifies the processes that can be looked up by number: host, boot and PID namespace."""
    boot, pid_namespace = "", ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as stream:
        boot = stream.read().strip()
    with suppress(OSError):
        pid_namespace = os.readlink("/proc/self/ns/pid")
    return " ".join((socket.gethostname(), boot, pid_namespace))


def _refusal(folder: Folder, claim: Claim, patience_s: float) -> str:
    return (
        f"{folder}: in use by {_describe(claim)}; only one driver at a time works on it. Wait for that process or stop it; if "
        f"it has died, the same command takes over: at once on the same machine, after {patience_s:.0f} s without a heartbeat "
        f"on another one"
    )


def _describe(claim: Claim) -> str:
    return f"host {claim['host']}, process {claim['pid']}, since {claim['since']}"


def _name(claim: Claim) -> str:
    return f"{_PREFIX}{claim['token']}{_SUFFIX}"


def _claims(folder: Folder) -> list[Claim]:
    names = [name for name in folder.names(suffix=_SUFFIX) if name.startswith(_PREFIX)]
    return [claim for name in names if (claim := _read(folder, name)) is not None]


def _read(folder: Folder, name: str) -> Claim | None:
    """Return a claim, None if it was removed since it was listed."""
    try:
        claim: Claim = folder.read_json(name)
        return claim
    except FileNotFoundError:
        return None


def _write(folder: Folder, claim: Claim) -> None:
    folder.write_json(_name(claim), claim)


def _print(text: str) -> None:
    print(f"kplm: {text}", file=sys.stderr, flush=True)
