"""How a driver gets the lock of a folder, and takes it over from a dead one; see `locking.lock`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ray_kplm.errors import RunError, StorageError
from ray_kplm.locking.claims import Claim, claim_content, claim_name, new_claim, read_claim, read_claims
from ray_kplm.locking.exclusive_files import ExclusiveFiles
from ray_kplm.locking.fence import Fence
from ray_kplm.storage import Folder

_ATTEMPTS = 20
_POLL_S = 1.0


def acquire(
    folder: Folder, files: ExclusiveFiles, patience_s: float, log: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """Claim a folder, after its dead drivers.

    Args:
        folder: the folder, which need not exist.
        files: what writes the claim.
        patience_s: how long to wait for a heartbeat of a holder on another machine, seconds.
        log: gets a line when this wait begins.

    Returns:
        The file of the claim, and what it says.

    Raises:
        RunError: another driver holds the lock; the message says which.
    """
    replaces: list[str] = []
    for _ in range(_ATTEMPTS):
        others = read_claims(folder)
        alive = [claim for claim in others if _is_alive(folder, claim, patience_s, log)]
        for claim in alive:
            if (now := read_claim(folder, claim.name)) is not None and now.is_held:
                raise RunError(_refusal(folder, now, patience_s))
        if not alive:
            replaces += [claim.token for claim in others]
            values = new_claim(1 + max((claim.term for claim in others), default=0), replaces)
            name = claim_name(values, exclusive=files.is_exclusive)
            if _create(folder, files, name, values, others):
                return name, values
        time.sleep(random.uniform(0.05, 0.5))  # another driver came at the same moment
    raise RunError(f"{folder}: several drivers claim it at the same time; start one of them")


def _create(folder: Folder, files: ExclusiveFiles, name: str, values: dict[str, Any], dead: list[Claim]) -> bool:
    """Write a claim, and remove those of dead drivers; return False, and leave no claim, if another driver came as well."""
    was_exclusive = files.is_exclusive
    if not files.create(name, claim_content(values)):
        return False
    try:
        known = {name, *(claim.name for claim in dead)}
        if files.is_exclusive == was_exclusive and all(claim.name in known for claim in read_claims(folder)):
            for claim in dead:
                folder.delete_file(claim.name)
            values["held"] = True
            if files.rewrite(name, claim_content(values)) and not Fence(folder, name, values["token"]).loss():
                return True
    except BaseException:
        with suppress(OSError, StorageError):
            folder.delete_file(name)
        raise
    folder.delete_file(name)
    return False


def _is_alive(folder: Folder, claim: Claim, patience_s: float, log: Callable[[str], None]) -> bool:
    """Return whether the driver of a claim is running, or may be. Waits up to `patience_s` if it is on another machine."""
    state = claim.process_state()
    if state != "unknown":
        return state != "gone"
    waited, pause, logged = 0.0, min(_POLL_S, patience_s / 10), not claim.is_held
    while waited < patience_s:
        if not logged:
            hint = "" if claim.values else f"; to not wait, remove {claim.name} if nobody works there"
            log(
                f"{folder}: claimed by {claim}; waiting up to {patience_s:.0f} s for a heartbeat, then taking over{hint}"
            )
            logged = True
        before = clock()
        time.sleep(pause)
        waited += min(clock() - before, 2 * pause)  # while this process is suspended, it sees nothing
        now = read_claim(folder, claim.name)
        if now is None:
            return False
        if now.content != claim.content:
            return True
    return False


def _refusal(folder: Folder, claim: Claim, patience_s: float) -> str:
    begin = f"{folder}: in use by {claim}"
    if claim.values is None:
        return (
            f"{begin}, and changes: another version may work there; only one driver at a time works on it. Stop that one, or "
            f"remove {claim.name} if there is none"
        )
    pid = claim.values["pid"]
    if claim.process_state() == "stopped":
        return (
            f"{begin}, which is stopped (Ctrl-Z or SIGSTOP): `kill -CONT {pid}` lets it go on; `kill -KILL {pid}` ends it, and "
            f"then the same command takes over"
        )
    return (
        f"{begin}; only one driver at a time works on it. Wait for that process or stop it; if it has died, the same command "
        f"takes over: at once on the same machine, after {patience_s:.0f} s without a heartbeat on another one"
    )


def clock() -> float:
    """Return seconds that also pass while the machine is suspended, where the system counts these."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
