"""The boundaries of a run: each file that its driver or a worker publishes, and each that it deletes.

`python -m ray_kplm.bench.boundaries PLAN.json train ...` is `kplm train ...` that notes its boundaries, and dies by SIGKILL at
one of them. It uses what every change of a locked folder asks beforehand (`locking.fence.Fence`), in all processes of the run.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_kplm.locking import lock as run_lock
from ray_kplm.locking.fence import Fence
from ray_kplm.storage import Folder

DRIVER, WORKER = "driver", "worker"
_VARYING = re.compile(r"\d{9,}|[0-9a-f]{32}")
"""Times and tokens in names, which differ from process to process."""


@dataclass(frozen=True, order=True)
class Boundary:
    """A change of the run directory."""

    role: str
    """`DRIVER` or `WORKER`: which process makes it."""
    change: str
    """`publish` or `delete`."""
    path: str
    """Relative to the run directory, with `*` for what varies."""
    occurrence: int = 1
    """Which of several such changes of one process."""

    def __str__(self) -> str:
        again = f" ({self.occurrence})" if self.occurrence > 1 else ""
        return f"{self.change} {self.path}{again}"


@dataclass(frozen=True)
class Plan:
    """What a driver notes, and where it dies. Picklable: workers have it too."""

    log: str
    """File that the boundaries are appended to."""
    driver: int
    """Process number of the driver."""
    target: Boundary | None = None
    """Where driver and worker are killed; None: nowhere."""
    worker_targets: tuple[Boundary, ...] = ()
    """Where a worker alone is killed, once at each."""


_seen: dict[tuple[str, str], int] = {}
"""Changes of this process, and how often each was made."""


@dataclass(frozen=True)
class BoundaryFence(Fence):
    """A fence that notes each change, and kills its process before the change of the plan is made."""

    plan: Plan = Plan("", 0)

    def check(self, change: str = "", path: str = "") -> None:
        """Do what `Fence.check` does, and die here if the plan says so."""
        super().check(change, path)
        if not change:
            return
        role = DRIVER if os.getpid() == self.plan.driver else WORKER
        relative = _VARYING.sub("*", path.removeprefix(f"{self.folder.path}/"))
        _seen[change, relative] = _seen.get((change, relative), 0) + 1
        boundary = Boundary(role, change, relative, _seen[change, relative])
        if "*" in relative and boundary.occurrence > 1:
            return  # how often depends on time
        with open(self.plan.log, "a") as log:
            log.write(json.dumps(vars(boundary)) + "\n")
        if boundary == self.plan.target:
            _tear(change, path)
            _kill(self.plan.driver)
            _kill(os.getpid())
        elif boundary in self.plan.worker_targets and self._is_first_at(boundary):
            _tear(change, path)
            _kill(os.getpid())

    def _is_first_at(self, boundary: Boundary) -> bool:
        """Return whether no worker was killed here before: another one comes to the same boundary."""
        mark = Path(f"{self.plan.log}.{self.plan.worker_targets.index(boundary)}")
        with suppress(FileExistsError):
            mark.touch(exist_ok=False)
            return True
        return False


def _tear(change: str, path: str) -> None:
    """Delete half of a folder that is about to be deleted, as a process does that dies meanwhile."""
    if change == "delete" and os.path.isdir(path):
        files = sorted(file for file in Path(path).rglob("*") if file.is_file())
        for file in files[::2]:
            file.unlink()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def read_log(log: Path) -> list[Boundary]:
    """Return the boundaries that a driver and its workers noted, in their order and each once."""
    if not log.exists():
        return []
    return list(dict.fromkeys(Boundary(**json.loads(line)) for line in log.read_text().splitlines()))


def write_plan(file: Path, log: Path, target: Boundary | None, worker_targets: Iterable[Boundary] = ()) -> None:
    """Write the plan for a driver."""
    plan = {
        "log": str(log),
        "target": None if target is None else vars(target),
        "worker_targets": [vars(boundary) for boundary in worker_targets],
    }
    file.write_text(json.dumps(plan))


def _read_plan(file: Path) -> Plan:
    values: dict[str, Any] = json.loads(file.read_text())
    return Plan(
        values["log"],
        os.getpid(),
        None if values["target"] is None else Boundary(**values["target"]),
        tuple(Boundary(**boundary) for boundary in values["worker_targets"]),
    )


def main(arguments: list[str]) -> None:
    """Run `kplm` with the arguments after the first one, which is the file of the plan."""
    from ray_kplm.bench import boundaries  # not __main__, which workers do not have

    plan = boundaries._read_plan(Path(arguments[0]))

    def fence(folder: Folder, name: str, token: str) -> Fence:
        return boundaries.BoundaryFence(folder, name, token, plan)

    run_lock.Fence = fence  # type: ignore[assignment, attr-defined]
    sys.argv = ["kplm", *arguments[1:]]
    runpy.run_module("ray_kplm.cli", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
