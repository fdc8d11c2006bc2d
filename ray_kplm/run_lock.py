"""One driver at a time on a folder: a second one is refused, and told who holds it.

Each driver writes a claim of its own, `.driver-<token>.json`, and holds the folder when a look after that finds no other
claim: of two that come at once at least one sees the other. So no exclusive creation is needed, which object stores lack, and
no clock: a claim is alive while its `beat` counts on, and the time without one is measured by whoever watches. On the
holder's own machine its process is looked up instead. A claim outlives a killed holder and is then taken over.
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
"""Between two signs of life of a holder."""
PATIENCE_S = 30.0
"""A holder on another machine without a sign of life for so long is gone."""
_PREFIX, _SUFFIX = ".driver-", ".json"
_TRIES = 20
_LOOK_S = 1.0

Claim = dict[str, Any]


class Held:
    """The folder is this process's until `release`, or until another driver took this one for dead."""

    def __init__(self, folder: Folder, claim: Claim, beat_s: float) -> None:
        self._folder, self._claim, self._beat_s = folder, claim, beat_s
        self._lost = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        return bool(self._lost)

    def check(self) -> None:
        """Raises RunError if the folder is no longer this process's: another took over while this one was suspended."""
        if self.is_lost:
            raise RunError(f"{self._folder}: {self._lost}; this driver stops, so that two do not work on one run")

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError, StorageError):  # what cannot be removed now is taken over later
            self._folder.delete_file(_name(self._claim))

    def _live(self) -> None:
        while not self._stop.wait(self._beat_s):
            with suppress(OSError, StorageError):  # storage that is full, or fails for a while
                self._lost = self._loss(_claims(self._folder))
                if self._lost:
                    return
                self._claim["beat"] += 1
                _write(self._folder, self._claim)

    def _loss(self, claims: list[Claim]) -> str:
        token = self._claim["token"]
        for claim in claims:
            if token in claim["replaces"]:
                return f"taken over by {_who(claim)}, to whom this process gave no sign of life"
        return "" if any(claim["token"] == token for claim in claims) else f"{_name(self._claim)} was removed"


@contextmanager
def held(
    folder: Folder, *, beat_s: float = BEAT_S, patience_s: float = PATIENCE_S, log: Callable[[str], None] | None = None
) -> Iterator[Held]:
    """Hold a folder while the block runs. Raises RunError, which says who holds it, if another driver does.

    log: gets a line when the holder runs on another machine, so that up to `patience_s` pass until it is known to live.
    """
    lock = Held(folder, _acquire(folder, patience_s, log or _print), beat_s)
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
    for _ in range(_TRIES):
        for other in _claims(folder):
            if _lives(folder, other, patience_s, log):
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
        folder.delete_file(_name(claim))  # another one claims it at this moment: the one that comes back first has it
        time.sleep(random.uniform(0.05, 0.5))
    raise RunError(f"{folder}: several drivers claim it at the same time; start one of them")


def _lives(folder: Folder, claim: Claim, patience_s: float, log: Callable[[str], None]) -> bool:
    """Whether the process of a claim is at work, or may be."""
    if claim["machine"] == _machine():
        known = _process_lives(claim["pid"], claim["started"])
        if known is not None:
            return known
    deadline = time.monotonic() + patience_s
    logged = not claim["held"]
    while time.monotonic() < deadline:
        if not logged:
            log(f"{folder}: claimed by {_who(claim)}; waiting up to {patience_s:.0f} s for a sign of life of it")
            logged = True
        time.sleep(min(_LOOK_S, patience_s / 10))
        now = _read(folder, _name(claim))
        if now is None:
            return False
        if (now["beat"], now["held"]) != (claim["beat"], claim["held"]):
            claim.update(now)
            return True
    return False


def _process_lives(pid: int, started: float) -> bool | None:
    """Of this machine's process; None: one of that number, and it cannot be told whether it is the same."""
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
    """Processes can be looked up by number where this is the same: one boot of one host, one space of numbers."""
    boot, numbers = "", ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as stream:
        boot = stream.read().strip()
    with suppress(OSError):
        numbers = os.readlink("/proc/self/ns/pid")
    return " ".join((socket.gethostname(), boot, numbers))


def _refusal(folder: Folder, claim: Claim, patience_s: float) -> str:
    return (
        f"{folder}: in use by {_who(claim)}; only one driver at a time works on it. Wait for that process or stop it; if it is "
        f"gone, the same command takes over after {patience_s:.0f} s without a sign of life, at once on the same machine"
    )


def _who(claim: Claim) -> str:
    return f"host {claim['host']}, process {claim['pid']}, since {claim['since']}"


def _name(claim: Claim) -> str:
    return f"{_PREFIX}{claim['token']}{_SUFFIX}"


def _claims(folder: Folder) -> list[Claim]:
    names = [name for name in folder.names(suffix=_SUFFIX) if name.startswith(_PREFIX)]
    return [claim for name in names if (claim := _read(folder, name)) is not None]


def _read(folder: Folder, name: str) -> Claim | None:
    """A claim; None if it has gone since it was listed."""
    try:
        claim: Claim = folder.read_json(name)
        return claim
    except FileNotFoundError:
        return None


def _write(folder: Folder, claim: Claim) -> None:
    folder.write_json(_name(claim), claim)


def _print(text: str) -> None:
    print(f"kplm: {text}", file=sys.stderr, flush=True)
