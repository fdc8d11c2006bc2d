"""The claims of drivers on a folder: `.driver-*.json`, one a driver. `locking.lock` says what they are for."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import psutil

from ray_kplm.storage import Folder

PREFIX, SUFFIX = ".driver-", ".json"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "token": str,
    "host": str,
    "machine": str,
    "pid": int,
    "started": (int, float),
    "since": str,
    "held": bool,
    "beat": int,
    "replaces": list,
}
"""What every claim has. `term` is missing in those of earlier versions."""
_ROOM = 24
"""Bytes that a claim may grow by: it is rewritten in place, and nobody must read half of it."""

ProcessState = Literal["running", "stopped", "gone", "unknown"]


@dataclass(frozen=True)
class Claim:
    """A claim file as it was read."""

    name: str
    content: bytes
    values: Mapping[str, Any] | None
    """What it says; None: it is empty, torn, or nothing that this version knows."""

    @property
    def is_held(self) -> bool:
        """Whether its driver works, as far as is known; otherwise it is about to find out whether it may."""
        return self.values is None or bool(self.values["held"])

    @property
    def token(self) -> str:
        """What identifies the driver; the name of the file where that is unknown."""
        return self.name if self.values is None else str(self.values["token"])

    @property
    def term(self) -> int:
        """Its number, larger than that of every claim that its driver saw; 0 where it has none."""
        term = 0 if self.values is None else self.values.get("term", 0)
        return term if isinstance(term, int) else 0

    @property
    def replaced(self) -> list[str]:
        """The tokens of the dead drivers that its driver took over from."""
        return [] if self.values is None else list(map(str, self.values["replaces"]))

    def process_state(self) -> ProcessState:
        """Return how its process is, `unknown` for one of another machine."""
        if self.values is None or self.values["machine"] != machine():
            return "unknown"
        return _process_state(self.values["pid"], self.values["started"])

    def __str__(self) -> str:
        if self.values is None:
            what = "empty" if not self.content.strip() else "not readable as a claim"
            return f"a driver whose claim {self.name} is {what}"
        return f"host {self.values['host']}, process {self.values['pid']}, since {self.values['since']}"


def read_claim(folder: Folder, name: str) -> Claim | None:
    """Return a claim; None if there is no such file, or none any more."""
    try:
        content = folder.read_bytes(name)
    except FileNotFoundError:
        return None
    return Claim(name, content, _parse(content))


def read_claims(folder: Folder) -> list[Claim]:
    """Return all claims on a folder, in the order of their names."""
    names = [name for name in folder.names(suffix=SUFFIX) if name.startswith(PREFIX)]
    return [claim for name in names if (claim := read_claim(folder, name)) is not None]


def new_claim(term: int, replaces: Sequence[str]) -> dict[str, Any]:
    """Return the values of a claim of this process."""
    return {
        "token": uuid.uuid4().hex,
        "term": term,
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "held": False,
        "beat": 0,
        "replaces": list(replaces),
    }


def claim_name(values: Mapping[str, Any], *, exclusive: bool) -> str:
    """Return the name of a claim's file: the same for drivers that come together, where that excludes all but one."""
    return f"{PREFIX}{values['term']:08d}{'' if exclusive else '-' + values['token']}{SUFFIX}"


def claim_content(values: Mapping[str, Any]) -> bytes:
    """Return the content of a claim's file, of the same length whatever the heartbeat."""
    text = json.dumps({**values, "held": False, "beat": 0}, indent=1, sort_keys=True)
    return json.dumps(dict(values), indent=1, sort_keys=True).ljust(len(text) + _ROOM).encode() + b"\n"


def machine() -> str:
    """Return what identifies the processes that can be looked up by number: host, boot and PID namespace."""
    boot, pid_namespace = "", ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as stream:
        boot = stream.read().strip()
    with suppress(OSError):
        pid_namespace = os.readlink("/proc/self/ns/pid")
    return " ".join((socket.gethostname(), boot, pid_namespace))


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not all(isinstance(values.get(key), kind) for key, kind in _KINDS.items()):
        return None
    return values


def _process_state(pid: int, started: float) -> ProcessState:
    """Return how a process of this machine is; `unknown` if another process may have its number."""
    try:
        process = psutil.Process(pid)
        status = process.status()
        if status == psutil.STATUS_ZOMBIE:
            return "gone"
        if abs(process.create_time() - started) >= 1:
            return "unknown"
        return "stopped" if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) else "running"
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return "gone"
    except psutil.AccessDenied:
        return "unknown"
