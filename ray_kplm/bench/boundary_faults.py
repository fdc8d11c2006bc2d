"""`kplm bench chaos`: kill a small run at every boundary of a round, and compare the result with an undisturbed run.

A relay of drivers makes the run: each goes on where the one before it was killed, and is killed at the next boundary. Then
a run is made in which workers alone are killed, each at a boundary of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray_kplm.bench.boundaries import WORKER, Boundary, read_log, write_plan
from ray_kplm.bench.run_comparison import differences, outputs
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.errors import RunError
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.steps.ingest import ingest
from ray_kplm.tracking import audit

_IMAGES, _PART_IMAGES = 40, 20
_CONFIG = [
    "network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=8",
    "keypoints.detector=orb", "keypoints.limit=20", "method.landmarks=5", "method.clusters=12",
    "method.mirror=partners", "method.drop_static=no", "augment.paste=0", "detection.inside_box=false",
    "detection.calibration_images=20", "stage1.batch_size=4", "stage1.warmup_iterations=20", "stage1.rounds=0",
    "stage1.learning_rate=1e-3", "stage2.iterations=20", "stage2.batch_size=4", "stage2.learning_rate=1e-3",
    "clustering.n_init=2", "limits.min_points_per_image=0", "limits.min_image_share=0", "compute.precision=fp32",
    "compute.threads=1", "compute.checkpoint_iterations=10", "compute.max_failures=30",
]  # fmt: skip
_DEADLINE_S = 300.0
_KILLED = -9


def bench(count: int | None, progress: ProgressCallback) -> dict[str, Any]:
    """Kill a driver at the boundaries of a run of one round, and its workers at theirs.

    Args:
        count: Number of boundaries, evenly spread; None: all.
        progress: Called before each process.

    Returns:
        `boundaries`: how many the run has; `killed`: at which driver and worker, or a worker alone, were killed; `missed`:
        which were not come to again; `problems`: in words; `same`: whether there are none; `calm_seconds`, `seconds`.

    Raises:
        RunError: The undisturbed run failed.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kplm-boundaries-") as name:
        folder = Path(name)
        with session(load_config(None).compute):
            write_category(folder / "images", _IMAGES, size=64, test_share=0.2)
            ingest(str(folder / "images"), str(folder / "dataset"), IngestOptions(part_images=_PART_IMAGES))
        (folder / "defaults.yaml").touch()
        progress(0.0, "an undisturbed run")
        calm, calm_started = _Relay(folder, "calm"), time.monotonic()
        if code := calm.start(None):
            raise RunError(f"the undisturbed run did not finish: exit code {code}, {calm.last_line()}")
        calm_seconds, boundaries = time.monotonic() - calm_started, read_log(calm.log)
        chosen = spread(boundaries, count)
        relay = _Relay(folder, "relay")
        relay.kill_at(chosen, progress)
        workers = _Relay(folder, "workers")
        workers.kill_workers_at([boundary for boundary in chosen if boundary.role == WORKER], progress)
        reference = outputs(calm.run, scored=False)
        problems = [*relay.compare(reference), *workers.compare(reference)]
    progress(1.0, "all boundaries")
    return {
        "boundaries": len(boundaries),
        "killed": [f"{b.role}: {b}" for b in relay.killed] + [f"{WORKER} alone: {b}" for b in workers.killed],
        "missed": [str(boundary) for boundary in chosen if boundary not in relay.killed],
        "problems": problems,
        "same": not problems,
        "calm_seconds": calm_seconds,
        "seconds": time.monotonic() - started,
    }


def spread(boundaries: Sequence[Boundary], count: int | None) -> list[Boundary]:
    """Return so many of the boundaries, evenly spread and in their order; all for None."""
    if count is None or count >= len(boundaries):
        return list(boundaries)
    return [boundaries[(2 * i + 1) * len(boundaries) // (2 * count)] for i in range(count)]


def lines(results: dict[str, Any]) -> list[str]:
    """Return what was found, a line for each problem."""
    killed, missed = len(results["killed"]), results["missed"]
    out = [f"not come to again: {', '.join(missed)}"] if missed else []
    out += results["problems"] or ["same bits"]
    out.append(
        f"{killed} kills at {results['boundaries']} boundaries in {results['seconds']:.0f} s; the undisturbed run takes "
        f"{results['calm_seconds']:.0f} s"
    )
    return out


class _Relay:
    """A run directory, and the drivers that work on it one after another."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._run_folder, self._output = folder / name / "run", folder / f"{name}.log"
        self.log = folder / f"{name}.boundaries"
        self.killed: list[Boundary] = []
        self._problems: list[str] = []
        self._is_finished = False

    @property
    def run(self) -> Run:
        """The run that was made."""
        return Run.open(str(self._run_folder))

    def start(self, target: Boundary | None, worker_targets: Sequence[Boundary] = ()) -> int:
        """Go on with the run, to its end or to a boundary; return the exit code."""
        plan = self._folder / f"{self._name}.json"
        write_plan(plan, self.log, target, worker_targets)
        command = [
            "train", str(self._folder / "defaults.yaml"), f"dataset={self._folder / 'dataset'}",
            f"run={self._run_folder}", *_CONFIG,
        ]  # fmt: skip
        with self._output.open("ab") as output:
            driver = subprocess.Popen(
                [sys.executable, "-m", "ray_kplm.bench.boundaries", str(plan), *command],
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ray kills the process group of a driver that is killed
            )
        try:
            code = driver.wait(_DEADLINE_S)
        finally:
            driver.kill()
        self._is_finished = code == 0
        return code

    def kill_at(self, targets: Sequence[Boundary], progress: ProgressCallback) -> None:
        """Kill a driver, and the worker that is at work there, at each boundary; then finish the run."""
        for number, target in enumerate([*targets, None]):
            if self._is_finished:
                return
            progress(number / (len(targets) + 2), f"killing at: {target}" if target else "the rest of the run")
            code = self._try(target)
            if code == _KILLED and target is not None:
                self.killed.append(target)
            elif code:
                self._problems.append(f"{target or 'the end'}: exit code {code}: {self.last_line()}")

    def kill_workers_at(self, targets: Sequence[Boundary], progress: ProgressCallback) -> None:
        """Kill a worker at each boundary of theirs, in one run."""
        progress(len(targets) / (len(targets) + 1), "killing workers alone")
        if code := self._try(None, targets):
            self._problems.append(f"workers: exit code {code}: {self.last_line()}")
        self.killed = [b for i, b in enumerate(targets) if Path(f"{self.log}.{i}").exists()]

    def _try(self, target: Boundary | None, worker_targets: Sequence[Boundary] = ()) -> int:
        try:
            return self.start(target, worker_targets)
        except subprocess.TimeoutExpired:
            self._problems.append(f"{target}: not finished after {_DEADLINE_S:.0f} s: {self.last_line()}")
            return 0

    def compare(self, reference: dict[str, Any]) -> list[str]:
        """Return what is wrong with the run, in words."""
        if not self._is_finished:
            return [*self._problems, f"{self._name}: did not finish: {self.last_line()}"]
        problems = list(self._problems)
        if differing := differences(reference, outputs(self.run, scored=False)):
            problems.append(f"{self._name}: differs in {', '.join(differing)}")
        tracked = audit(self.run)
        if tracked != {"runs": 1, "status": "FINISHED", "repeated": []}:
            problems.append(f"{self._name}: MLflow: {tracked}")
        left = [str(p.relative_to(self._run_folder)) for p in self._run_folder.rglob("*") if is_leftover(p)]
        if left:
            problems.append(f"{self._name}: left behind: {', '.join(left)}")
        return problems

    def last_line(self) -> str:
        """Return the last line that a driver printed."""
        return (self._output.read_text().strip().splitlines() or ["no output"])[-1]


def is_leftover(path: Path) -> bool:
    """Return whether a file or folder is of no use in a finished run."""
    return path.name in ("claim.json", "ray") or path.name.startswith(".driver-")
