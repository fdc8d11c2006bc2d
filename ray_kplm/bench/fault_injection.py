"""`kplm bench chaos --victims`: kill processes of small runs on three local nodes.

The results are compared with those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ray_kplm.analysis.evaluate import evaluate
from ray_kplm.bench.faults import CHECKPOINT, DRIVER, MOMENTS, NODE, Fault
from ray_kplm.bench.run_comparison import differences, outputs
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.errors import RunError
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import CLAIM, MANIFEST, Run
from ray_kplm.runtime.local_cluster import LocalCluster
from ray_kplm.runtime.session import session
from ray_kplm.steps.ingest import ingest
from ray_kplm.storage import Folder
from ray_kplm.tracking import audit

_IMAGES, _PART_IMAGES = 240, 12
_CHECKPOINT_ITERATIONS = 20
_CONFIG = [
    "network.image_size=64", "network.width=32", "network.depth=2", "network.groups=4", "network.descriptor_dim=16",
    "keypoints.detector=orb", "keypoints.limit=20", "method.landmarks=5", "method.clusters=12",
    "stage1.warmup_iterations=100", "stage1.rounds=1", "stage1.round_iterations=100", "stage1.batch_size=4",
    "stage1.learning_rate=1e-3", "stage1.pair_weighting=balanced", "stage1.descriptor_weight=1",
    "stage2.iterations=100", "stage2.batch_size=4", "stage2.learning_rate=1e-3",
    "clustering.n_init=10", "clustering.iterations=200", "clustering.tolerance=0",
    "compute.workers=2", "compute.threads=1", "compute.shards=2", "compute.extract_workers=2",
    f"compute.checkpoint_iterations={_CHECKPOINT_ITERATIONS}", "compute.max_failures=5",
]  # fmt: skip
_HEAD_CPUS, _NODE_CPUS = 1, (3, 3)
_POLL_S, _DEADLINE_S = 0.01, 900.0


def bench(victims: Sequence[str], together: bool, progress: ProgressCallback) -> dict[str, Any]:
    """Inject the faults of some victims into runs.

    Args:
        victims: Kinds of processes to kill.
        together: Whether to inject all faults of a row of `MOMENTS` into one run, instead of one fault into each run.
        progress: Called before each run.

    Returns:
        See `run_cases`.
    """
    chosen = [[fault for fault in row if fault.victim in victims] for row in MOMENTS]
    cases = [row for row in chosen if row] if together else [[fault] for row in chosen for fault in row]
    with tempfile.TemporaryDirectory(prefix="kplm-fault-injection-") as folder:
        return run_cases(Path(folder), cases, progress)


def run_cases(folder: Path, cases: Sequence[Sequence[Fault]], progress: ProgressCallback) -> dict[str, Any]:
    """Run the cases one after another on one cluster.

    Args:
        folder: Folder for the dataset and the runs.
        cases: The faults of each run.
        progress: Called before each run.

    Returns:
        For each case its facts (see `_Case.facts`), the number of faults, whether all results equal those of an undisturbed
        run, and seconds.

    Raises:
        RunError: The undisturbed run failed.
    """
    started = time.monotonic()
    with (
        LocalCluster(_HEAD_CPUS, _NODE_CPUS) as cluster,
        _environment(RAY_ADDRESS=cluster.address),
        session(load_config(None).compute),
    ):
        write_category(folder / "images", _IMAGES, size=64, test_share=0.2)
        ingest(str(folder / "images"), str(folder / "dataset"), IngestOptions(part_images=_PART_IMAGES))
        progress(0.0, "an undisturbed run")
        undisturbed = _Case(folder, "undisturbed", []).run(cluster)
        if not undisturbed.outputs:
            raise RunError(f"the undisturbed run did not finish: {'; '.join(undisturbed.problems)}")
        rows = []
        for number, faults in enumerate(cases):
            progress((number + 1) / (len(cases) + 1), f"killing: {'; '.join(map(str, faults))}")
            rows.append(_Case(folder, f"case-{number:02d}", faults).run(cluster).facts(undisturbed))
    progress(1.0, "all runs")
    return {
        "cases": rows,
        "faults": sum(len(row["faults"]) for row in rows),
        "same": all(row["same"] for row in rows),
        "calm_seconds": undisturbed.seconds,
        "seconds": time.monotonic() - started,
    }


def lines(results: dict[str, Any]) -> list[str]:
    """Return a line for each case, with its problems if there are any."""
    out = []
    for row in results["cases"]:
        repeated = f"{row['repeated_iterations']} iterations repeated" if row["repeated_iterations"] else ""
        pieces = ["; ".join(row["faults"]), f"{row['seconds']:.0f} s", "same bits" if row["same"] else "", repeated]
        out.append(" · ".join(filter(None, [*pieces, *row["problems"]])))
    out.append(f"{results['faults']} faults; the undisturbed run takes {results['calm_seconds']:.0f} s")
    return out


class _Case:
    """A run, the faults that are injected into it, and its outcome."""

    def __init__(self, folder: Path, name: str, faults: Sequence[Fault]) -> None:
        self._folder, self._faults = folder, faults
        self._run_folder, self._log = folder / name / "run", folder / f"{name}.log"
        self.problems: list[str] = []
        self.seconds = 0.0
        self.outputs: dict[str, Any] = {}
        """What is compared (`run_comparison.outputs`); empty if the run did not finish."""
        self._reached: dict[str, int] = {}
        """Training step -> the last iteration it can have reached when it was disturbed."""

    def run(self, cluster: LocalCluster) -> _Case:
        """Run until the end or the deadline, and score the result."""
        began = time.monotonic()
        deadline = began + _DEADLINE_S
        driver = self._start_driver()
        try:
            for fault in self._faults:
                driver = self._inject(fault, cluster, driver, deadline)
            code = driver.wait(max(1.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            self.problems.append(f"not finished after {_DEADLINE_S:.0f} s: {self._last_line()}")
            return self
        finally:
            driver.kill()
        self.seconds = time.monotonic() - began
        if code:
            self.problems.append(f"exit code {code}: {self._last_line()}")
            return self
        run = Run.open(str(self._run_folder))
        evaluate(run)
        self.outputs = outputs(run)
        return self

    def facts(self, undisturbed: _Case) -> dict[str, Any]:
        """Compare with the undisturbed run.

        Returns:
            The faults, the seconds, whether there is no problem, the largest number of iterations a training step repeated, and
            the problems in words.
        """
        problems = list(self.problems)
        repeated = 0
        if self.outputs:
            differing = differences(undisturbed.outputs, self.outputs)
            problems += [f"differs in {', '.join(differing)}"] if differing else []
            tracked = audit(Run.open(str(self._run_folder)))
            if tracked != {"runs": 1, "status": "FINISHED", "repeated": []}:
                problems.append(f"MLflow: {tracked}")
            repeated = max((reached - self._resumed_at(step) for step, reached in self._reached.items()), default=0)
            if repeated > _CHECKPOINT_ITERATIONS:
                problems.append(f"more than {_CHECKPOINT_ITERATIONS} iterations repeated")
        return {
            "faults": [str(fault) for fault in self._faults],
            "seconds": self.seconds,
            "same": not problems,
            "repeated_iterations": repeated,
            "problems": problems,
        }

    def _start_driver(self) -> subprocess.Popen[bytes]:
        defaults = self._folder / "defaults.yaml"
        defaults.touch()
        command = ["train", str(defaults), f"dataset={self._folder / 'dataset'}", f"run={self._run_folder}", *_CONFIG]
        with self._log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "ray_kplm.cli", *command], stdout=log, stderr=log)

    def _inject(
        self, fault: Fault, cluster: LocalCluster, driver: subprocess.Popen[bytes], deadline: float
    ) -> subprocess.Popen[bytes]:
        """Wait for the moment of the fault, kill the victim, and return the driver that continues.

        Raises:
            TimeoutError: The moment did not come before the deadline.
        """
        while not self._is_due(fault):
            if self._is_over(fault) or driver.poll() is not None:
                return self._missed(fault, driver)
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_POLL_S)
        while True:
            self._record_progress(fault)
            if fault.victim == DRIVER:
                driver.kill()
                driver.wait()
                return self._start_driver()
            if cluster.replace_node(fault.title) if fault.victim == NODE else cluster.kill(fault.title):
                return driver
            if self._is_over(fault) or driver.poll() is not None:
                return self._missed(fault, driver)
            if time.monotonic() > deadline:
                raise TimeoutError

    def _missed(self, fault: Fault, driver: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        self.problems.append(f"the moment of {fault} was missed")
        return driver

    def _is_due(self, fault: Fault) -> bool:
        """Return whether the step is at work and has written the files since it began."""
        claim = _modified(self._run_folder / fault.step / CLAIM)
        if not claim or not fault.pattern:
            return bool(claim)
        folder = self._run_folder if fault.pattern == CHECKPOINT else self._run_folder / fault.step
        return sum(_modified(path) >= claim for path in folder.glob(fault.pattern)) >= fault.count

    def _is_over(self, fault: Fault) -> bool:
        """Return whether the step is finished; features are deleted when they are clustered, so the labels count for these."""
        step = fault.step.replace("features", "labels")
        return (self._run_folder / step / MANIFEST).exists()

    def _record_progress(self, fault: Fault) -> None:
        """Record the iteration that a training step can have reached.

        It is at most that of the next checkpoint. If Ray Train has not registered the newest checkpoint yet, for which a worker
        waits, it is that checkpoint's.
        """
        newest_path = max(self._run_folder.glob(CHECKPOINT), key=lambda path: path.name, default=None)
        if newest_path is None or not fault.step.endswith(("train", "stage2")):
            return
        folder, newest = Folder.at(newest_path.parent), newest_path.name
        with contextlib.suppress(FileNotFoundError):  # the checkpoint is being written; the one before is the newest
            registered = newest.encode() in folder.read_bytes("checkpoint_manager_snapshot.json")
            iteration = int((folder / newest).read_json("position.json")["iteration"])
            self._reached[fault.step] = iteration + (_CHECKPOINT_ITERATIONS if registered else 0)

    def _resumed_at(self, step: str) -> int:
        """Return the iteration at which a training step was last resumed."""
        return int(Run.open(str(self._run_folder)).finished(step)["starts"][-1])

    def _last_line(self) -> str:
        return (self._log.read_text().strip().splitlines() or ["no output"])[-1]


def _modified(path: Path) -> int:
    """Return the modification time of a file in nanoseconds, or 0 if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables temporarily."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
