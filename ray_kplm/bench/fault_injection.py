"""`kplm bench chaos`: small runs on three nodes on this machine, their processes killed, compared with one left alone."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_kplm.analysis.evaluate import evaluate
from ray_kplm.config import load_config
from ray_kplm.correspondence.clusters import CLUSTERS, read_clusters
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.errors import RunError
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import CLAIM, MANIFEST, Run, round_path
from ray_kplm.runtime.local_cluster import LocalCluster
from ray_kplm.runtime.session import session
from ray_kplm.runtime.train_loop import METRICS
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
_LOOK_S, _DEADLINE_S = 0.01, 900.0

WORKER, EXTRACTION, SHARD = "worker", "extraction", "shard"
COORDINATOR, CONTROLLER, DRIVER, NODE = "coordinator", "controller", "driver", "node"
_TITLES = {
    WORKER: "RayTrainWorker",
    EXTRACTION: "MapBatches(_work_on_part)",
    SHARD: "_ShardActor",
    COORDINATOR: "CorrespondenceActor",
    CONTROLLER: "TrainController",
}
"""In the titles of Ray's processes."""


@dataclass(frozen=True)
class Fault:
    """What is killed: as soon as, while the step is at work, so many files of a pattern are in the run.

    A node is one that has a training worker or an extraction worker.
    """

    victim: str
    step: str
    pattern: str = ""
    count: int = 1

    def __str__(self) -> str:
        when = (
            f"{self.step}, {self.count} x {Path(self.pattern).name}" if self.pattern else f"{self.step}, at its start"
        )
        return f"{self.victim} ({when})"

    @property
    def title(self) -> str:
        if self.victim == NODE:
            return _TITLES[EXTRACTION if self.step.endswith("features") else WORKER]
        return _TITLES[self.victim]


_CHECKPOINT, _PART = "ray/checkpoint_*", "part-*.parquet"
"""Of the run, while a training step is at work; of the step."""
MOMENTS: tuple[tuple[Fault, ...], ...] = (
    (
        Fault(WORKER, "rounds/000/train"),
        Fault(DRIVER, "rounds/000/train", _CHECKPOINT),
        Fault(NODE, "rounds/000/features"),
        Fault(EXTRACTION, "rounds/000/features", _PART),
        Fault(SHARD, "rounds/000/labels"),
        Fault(CONTROLLER, "rounds/001/train", _CHECKPOINT),
        Fault(COORDINATOR, "rounds/001/labels"),
    ),
    (
        Fault(NODE, "rounds/000/train", _CHECKPOINT),
        Fault(EXTRACTION, "rounds/000/features"),
        Fault(DRIVER, "rounds/000/labels"),
        Fault(COORDINATOR, "rounds/000/labels"),
        Fault(WORKER, "rounds/001/train", _CHECKPOINT),
        Fault(SHARD, "rounds/001/labels", _PART),
        Fault(CONTROLLER, "stage2"),
    ),
    (
        Fault(CONTROLLER, "rounds/000/labels"),
        Fault(COORDINATOR, "rounds/000/labels", _PART),
        Fault(NODE, "rounds/001/train", _CHECKPOINT, 2),
        Fault(EXTRACTION, "rounds/001/features", _PART, 4),
        Fault(SHARD, "rounds/001/labels"),
        Fault(DRIVER, "stage2", _CHECKPOINT),
        Fault(WORKER, "stage2", _CHECKPOINT, 2),
    ),
)
"""Three moments of each of seven victims. Those of one row can all happen to one run, in this order."""


def bench(victims: Sequence[str], together: bool, progress: ProgressCallback) -> dict[str, Any]:
    """A run for each fault, or one for each row of MOMENTS; a row of facts each, with what differs from the run left alone."""
    chosen = [[fault for fault in row if fault.victim in victims] for row in MOMENTS]
    cases = [row for row in chosen if row] if together else [[fault] for row in chosen for fault in row]
    with tempfile.TemporaryDirectory(prefix="kplm-chaos-") as folder:
        return run_cases(Path(folder), cases, progress)


def run_cases(folder: Path, cases: Iterable[Sequence[Fault]], progress: ProgressCallback) -> dict[str, Any]:
    """The cases one after the other, on one cluster."""
    started = time.monotonic()
    with (
        LocalCluster(_HEAD_CPUS, _NODE_CPUS) as cluster,
        _environment(RAY_ADDRESS=cluster.address),
        session(load_config(None).compute),
    ):
        write_category(folder / "images", _IMAGES, size=64, test_share=0.2)
        ingest(str(folder / "images"), str(folder / "dataset"), IngestOptions(part_images=_PART_IMAGES))
        progress(0.0, "a run that is left alone")
        calm = _Case(folder, "calm", []).run(cluster)
        if not calm.result:
            raise RunError(f"a run that is left alone did not end: {'; '.join(calm.problems)}")
        rows = []
        for number, faults in enumerate(cases):
            progress(0.1, f"killing: {'; '.join(map(str, faults))}")
            rows.append(_Case(folder, f"case-{number:02d}", faults).run(cluster).facts(calm))
    return {
        "cases": rows,
        "faults": sum(len(row["faults"]) for row in rows),
        "same": all(row["same"] for row in rows),
        "calm_seconds": calm.seconds,
        "seconds": time.monotonic() - started,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """One a case, and what is wrong with it, if anything."""
    out = []
    for row in found["cases"]:
        repeated = f"{row['repeated_iterations']} iterations repeated" if row["repeated_iterations"] else ""
        pieces = ["; ".join(row["faults"]), f"{row['seconds']:.0f} s", "same bits" if row["same"] else "", repeated]
        out.append(" · ".join(filter(None, [*pieces, *row["problems"]])))
    out.append(f"{found['faults']} faults; left alone, the run takes {found['calm_seconds']:.0f} s")
    return out


class _Case:
    """A run, what happens to it, and how it ended."""

    def __init__(self, folder: Path, name: str, faults: Sequence[Fault]) -> None:
        self._folder, self._faults = folder, faults
        self._place, self._log = folder / name / "run", folder / f"{name}.log"
        self.problems: list[str] = []
        self._reached: dict[str, int] = {}  # step -> the iteration that it had come to at most when it was disturbed
        self.seconds = 0.0
        self.result: dict[str, Any] = {}

    def run(self, cluster: LocalCluster) -> _Case:
        """To the end, or to the deadline."""
        began = time.monotonic()
        deadline = began + _DEADLINE_S
        driver = self._drive()
        try:
            for fault in self._faults:
                driver = self._disturb(fault, cluster, driver, deadline)
            code = driver.wait(max(1.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            self.problems.append(f"no end after {_DEADLINE_S:.0f} s: {self._last_line()}")
            return self
        finally:
            driver.kill()
        self.seconds = time.monotonic() - began
        if code:
            self.problems.append(f"exit code {code}: {self._last_line()}")
            return self
        run = Run.open(str(self._place))
        evaluate(run)
        self.result = _result(run)
        return self

    def facts(self, calm: _Case) -> dict[str, Any]:
        """How it compares with the run left alone."""
        problems = list(self.problems)
        repeated = 0
        if self.result:
            differing = [name for name in calm.result if not _equal(calm.result[name], self.result.get(name))]
            problems += [f"differs in {', '.join(differing)}"] if differing else []
            tracked = audit(Run.open(str(self._place)))
            if tracked != {"runs": 1, "status": "FINISHED", "repeated": []}:
                problems.append(f"MLflow: {tracked}")
            repeated = max((reached - self._start(step) for step, reached in self._reached.items()), default=0)
            if repeated > _CHECKPOINT_ITERATIONS:
                problems.append(f"more than {_CHECKPOINT_ITERATIONS} iterations repeated")
        return {
            "faults": [str(fault) for fault in self._faults],
            "seconds": self.seconds,
            "same": not problems,
            "repeated_iterations": repeated,
            "problems": problems,
        }

    def _drive(self) -> subprocess.Popen[bytes]:
        defaults = self._folder / "defaults.yaml"
        defaults.touch()
        command = ["train", str(defaults), f"dataset={self._folder / 'dataset'}", f"run={self._place}", *_CONFIG]
        with self._log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "ray_kplm.cli", *command], stdout=log, stderr=log)

    def _disturb(
        self, fault: Fault, cluster: LocalCluster, driver: subprocess.Popen[bytes], deadline: float
    ) -> subprocess.Popen[bytes]:
        """Wait for the moment, kill the victim; the driver that goes on."""
        while not self._is_time(fault):
            if self._is_over(fault) or driver.poll() is not None:
                return self._missed(fault, driver)
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_LOOK_S)
        while True:
            self._note(fault)
            if fault.victim == DRIVER:
                driver.kill()
                driver.wait()
                return self._drive()
            if cluster.replace_node(fault.title) if fault.victim == NODE else cluster.kill(fault.title):
                return driver
            if self._is_over(fault) or driver.poll() is not None:
                return self._missed(fault, driver)
            if time.monotonic() > deadline:
                raise TimeoutError

    def _missed(self, fault: Fault, driver: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        self.problems.append(f"the moment of {fault} was missed")
        return driver

    def _is_time(self, fault: Fault) -> bool:
        """Whether the step is at work and has left so many files since it was begun."""
        claim = _made(self._place / fault.step / CLAIM)
        if not claim or not fault.pattern:
            return bool(claim)
        folder = self._place if fault.pattern == _CHECKPOINT else self._place / fault.step
        return sum(_made(path) >= claim for path in folder.glob(fault.pattern)) >= fault.count

    def _is_over(self, fault: Fault) -> bool:
        step = fault.step.replace("features", "labels")  # features are deleted once they are clustered
        return (self._place / step / MANIFEST).exists()

    def _note(self, fault: Fault) -> None:
        """How far the training may have come: to the next checkpoint, or, where the last one was not yet taken note of by Ray
        Train, for which a worker waits, no farther than that."""
        folder = Folder.at(self._place / Path(_CHECKPOINT).parent)
        newest = max((name for name in folder.folders() if name.startswith("checkpoint_")), default="")
        if not newest or not fault.step.endswith(("train", "stage2")):
            return
        with contextlib.suppress(FileNotFoundError):  # it is just being written, and the one before is the newest
            taken = newest.encode() in folder.read_bytes("checkpoint_manager_snapshot.json")
            iteration = int((folder / newest).read_json("position.json")["iteration"])
            self._reached[fault.step] = iteration + (_CHECKPOINT_ITERATIONS if taken else 0)

    def _start(self, step: str) -> int:
        """Where the training went on for the last time."""
        return int(Run.open(str(self._place)).finished(step)["starts"][-1])

    def _last_line(self) -> str:
        return (self._log.read_text().strip().splitlines() or ["no word"])[-1]


def _result(run: Run) -> dict[str, Any]:
    """All that must be the same: networks with their optimisers, metrics, labels, clusters, scores."""
    found: dict[str, Any] = {}
    rounds = [round_path(number) for number in range(run.config.stage1.rounds + 1)]
    for step in [*(f"{path}/train" for path in rounds), "stage2"]:
        folder = Folder.at(f"{run.folder.path}/{step}")
        found[f"{step}/{NETWORK}"] = folder.read_bytes(NETWORK)
        found[f"{step}/{METRICS}"] = folder.read_json(METRICS)
    for path in rounds:
        folder = Folder.at(f"{run.folder.path}/{path}")
        found[f"{path}/{CLUSTERS}"] = read_clusters(folder)
        found[f"{path}/labels"] = [(folder / "labels").read_table(part) for part in (folder / "labels").parts()]
    scores = (run.folder / "evaluation").read_json("metrics.json")
    found["evaluation"] = {name: value for name, value in scores.items() if name not in ("seconds", "folder")}
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bytes):
        return other is not None and _equal_tensors(_load(one), _load(other))
    if isinstance(one, dict) and one and all(isinstance(value, np.ndarray) for value in one.values()):
        return one.keys() == other.keys() and all(np.array_equal(one[n], other[n], equal_nan=True) for n in one)
    return bool(one == other)


def _load(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def _equal_tensors(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal_tensors(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal_tensors, one, other))
    return bool(one == other)


def _made(path: Path) -> int:
    """When; 0: it is not there."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
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
