"""What an executor skips, continues and does; and the number format that its workers get. No Ray, nothing is computed."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ray_kplm.analysis import embedding, label_free, predictions
from ray_kplm.config import ComputeConfig, from_dict, load_config, with_overrides
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.methods.channels import Channels
from ray_kplm.network.compute import Placement
from ray_kplm.run import Run, Step
from ray_kplm.runtime.kmeans_actors import own_hosts
from ray_kplm.runtime.map_parts import RayWorkers
from ray_kplm.runtime.train_workers import TrainWorkerPool
from ray_kplm.steps import cluster, detect, extract, merge, train, train_landmarks, update_labels
from ray_kplm.steps.executor import Executor
from ray_kplm.steps.recorder import Recording, record
from ray_kplm.steps.task import Task
from ray_kplm.storage import Folder

CPU = torch.device("cpu")


class Sent(Exception):
    """Raised in place of work on workers, with the layout that these would get."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute


@pytest.fixture
def resumed(tmp_path, monkeypatch) -> Run:
    """A run begun where bf16 is multiplied, which goes on where it is not."""
    splits = {"train": {"parts": ["part-00000.parquet"], "rows": [9], "images": 9}}
    manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits}
    Folder.at(tmp_path / "dataset").write_json("manifest.json", manifest)
    Folder.at(tmp_path / "dataset").write_json("dataset.json", {"name": "cats"})
    paths = [f"dataset={tmp_path / 'dataset'}", f"run={tmp_path / 'run'}"]
    config = load_config(None, [*paths, "stage1.rounds=1", "method.mirror=partners"])
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: ["amx_bf16"])
    Run.start(config).save()
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: ["avx2"])
    return Run.start(config)


def recording_of(run: Run, *overrides: str) -> Recording:
    config = from_dict(with_overrides(run.config.to_dict(), list(overrides)))
    return record(replace(run, config=config), Dataset.open(config.dataset))


def sends(monkeypatch, module, name, config_of):
    def send(*arguments, **options):
        raise Sent(config_of(*arguments).compute)

    monkeypatch.setattr(module, name, send)


def check_format(work) -> None:
    with pytest.raises(Sent) as sent:
        work()
    assert Placement.choose(sent.value.compute, CPU).autocast == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("kplm", "rounds/000/train"),
        ("kplm", "rounds/000/features"),
        ("kplm", "stage2"),
        ("merge", "stage2/000/merge"),
        ("template", "stage2/000/labels"),
    ],
)
def test_all_workers_of_a_run_have_the_format_that_it_was_begun_with(resumed, monkeypatch, kind, path):
    assert Placement.choose(resumed.config.compute, CPU).autocast is None  # what a worker would choose here
    recording = recording_of(resumed, f"method.kind={kind}")
    executor = Executor(resumed, recording)
    channels = Channels.first(np.ones(2, bool))
    sends(monkeypatch, extract, "extract", lambda extraction, *rest: extraction.config)
    sends(monkeypatch, merge, "merge_channels", lambda merging, *rest: merging.config)
    sends(monkeypatch, update_labels, "update_labels", lambda work, *rest: work.config)
    sends(monkeypatch, executor._workers, "train", lambda step, training, *rest: training.config)
    labels = SimpleNamespace(usable=lambda: np.arange(4))
    monkeypatch.setattr(detect.DetectKeypoints, "round_labels", lambda self, parts: labels)
    monkeypatch.setattr(train_landmarks.TrainLandmarks, "channels", lambda self: channels)
    monkeypatch.setattr(cluster.ClusterFeatures, "label_counts", lambda self: np.ones(2))
    monkeypatch.setattr(train_landmarks, "landmark_labels", lambda tables, channels: labels)
    monkeypatch.setattr(Folder, "read_tables", lambda self, parts, columns: [])
    for module in (train, train_landmarks):
        monkeypatch.setattr(module, "RoundImages", SimpleNamespace(load=lambda *arguments: None))
    check_format(lambda: recording[path].run(executor))


def test_all_workers_of_an_analysis_have_the_format_that_the_run_was_begun_with(resumed, monkeypatch):
    dataset = Dataset.open(resumed.config.dataset)
    whole = full_selection(dataset.parts("train"), dataset.rows("train"))
    sends(monkeypatch, predictions, "predict", lambda missing, config, *rest: config)
    sends(monkeypatch, embedding, "extract", lambda extraction, *rest: extraction.config)
    sends(monkeypatch, label_free, "map_parts", lambda worker, arguments, *rest: arguments["work"].config)
    monkeypatch.setattr(label_free, "_detector", lambda run, stage: (None, np.zeros(2), {"fingerprint": "f"}))
    monkeypatch.setattr(predictions, "predictor", lambda run, stage: (None, {"fingerprint": "f"}))
    check_format(lambda: predictions.landmarks_of(resumed, dataset, "train"))
    check_format(lambda: embedding._described(resumed, dataset, whole, 0, resumed.folder))
    check_format(lambda: label_free.measure_quality(resumed))


def test_the_configuration_that_fingerprints_are_made_of_says_auto(resumed):
    reads = [task.step.reads for task in recording_of(resumed)]
    assert {values["compute"]["precision"] for values in reads if "compute" in values} == {"auto"}


@dataclass(frozen=True, eq=False)
class Note(Task):
    """A task that notes that it was run."""

    path: str = ""
    inputs: tuple[Task, ...] = ()
    log: list[str] = field(default_factory=list)
    completes_round: int | None = None
    worker_batch: int | None = None
    fails: bool = False

    cost = 1.0

    @property
    def step(self) -> Step:
        return self.context.step(self.path, "note", {}, {task.path: task.fingerprint for task in self.inputs})

    @property
    def takes(self) -> tuple[Task, ...]:
        return self.inputs

    def run(self, executor: Executor) -> None:
        executor.begin(self, self.path)
        self.log.append(self.path)
        if self.fails:
            raise RuntimeError
        self.folder.write_bytes("output", b"")
        executor.finish(self, {}, {}, 0)


class Transient(Note):
    is_transient = True


class StartsWorkers(Note):
    starts_workers = True


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.start(load_config(None, [f"run={tmp_path / 'run'}"])).save()


def chain(run: Run, log: list[str], *, fails: bool = False) -> Recording:
    network = Note(run, "train", (), log)
    features = Transient(run, "features", (network,), log)
    labels = Note(run, "labels", (features,), log, completes_round=0, fails=fails)
    return Recording((network, features, labels, Note(run, "stage2", (network, labels), log, completes_round=1)))


def test_a_finished_run_is_not_done_again(run):
    log: list[str] = []
    Executor(run, chain(run, log)).execute()
    assert log == ["train", "features", "labels", "stage2"]
    Executor(run, chain(run, log)).execute()
    assert len(log) == 4
    assert chain(run, log).is_finished()


def test_a_transient_output_is_there_until_its_takers_are_done(run):
    log: list[str] = []
    with pytest.raises(RuntimeError):
        Executor(run, chain(run, log, fails=True)).execute()
    assert (run.folder / "features").is_file("output")
    Executor(run, chain(run, log)).execute()
    assert log == ["train", "features", "labels", "labels", "stage2"]  # features were not made again, neither now ...
    assert not (run.folder / "features").exists()
    Executor(run, chain(run, log)).execute()
    assert len(log) == 5  # ... nor after they were deleted


def test_what_a_killed_process_left_of_a_transient_output_is_deleted(run):
    Executor(run, chain(run, [])).execute()
    (run.folder / "features").write_bytes("output", b"")
    Executor(run, chain(run, [])).execute()
    assert not (run.folder / "features").exists()


def test_transient_outputs_stay_if_that_is_asked_for(run):
    keeping = replace(run, config=replace(run.config, keep_features=True))
    Executor(keeping, chain(keeping, [])).execute()
    assert (run.folder / "features").is_file("output")


def test_rounds_are_announced_also_if_they_were_finished_before(run):
    rounds: list[int] = []
    for _ in range(2):
        Executor(run, chain(run, [])).execute(after_round=lambda executor, round: rounds.append(round))
    assert rounds == [0, 1, 0, 1]


def test_execution_ends_after_the_task_that_is_named(run):
    log: list[str] = []
    recording = chain(run, log)
    Executor(run, recording).execute(until=recording["features"])
    assert log == ["train", "features"]


def test_a_lost_lock_stops_the_run_before_the_next_task(run):
    log: list[str] = []

    def check() -> None:
        if "features" in log:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        Executor(run, chain(run, log)).execute(check=check)
    assert log == ["train", "features"]


def test_workers_of_the_next_training_start_while_a_task_leaves_them_room(run, monkeypatch):
    log: list[str] = []
    first = Note(run, "first", (), log, worker_batch=3)
    labels = StartsWorkers(run, "labels", (first,), log)
    recording = Recording((first, labels, Note(run, "second", (labels,), log, worker_batch=5)))
    executor = Executor(run, recording)
    monkeypatch.setattr(executor._workers, "prepare", lambda batch: log.append(f"workers for {batch}"))
    executor.execute()
    assert log == ["first", "workers for 5", "labels", "second"]


class Clusters(Note):
    uses_clustering = works_in_workers = True


def test_what_is_kept_ends_before_work_that_needs_its_place_and_after_its_last_use(run, monkeypatch):
    log: list[str] = []
    first = Note(run, "first", (), log, worker_batch=3)
    labels = Clusters(run, "labels", (first,), log)
    merged = Note(run, "merged", (labels,), log)
    recording = Recording((first, labels, merged, Note(run, "second", (merged,), log, worker_batch=5)))
    executor = Executor(run, recording)
    monkeypatch.setattr(executor._workers, "make_room", lambda gpus: log.append(f"room, with GPUs: {gpus}"))
    monkeypatch.setattr(executor._clustering, "close", lambda: log.append("clustering ends"))
    executor.execute()
    assert log == [
        "first", "room, with GPUs: False", "labels", "clustering ends", "room, with GPUs: True", "merged", "second",
    ]  # fmt: skip


def test_a_task_works_in_the_training_workers_only_if_they_hold_gpus_and_a_training_follows(run, monkeypatch):
    first, last = Note(run, "first", (), []), Note(run, "last", (), [], worker_batch=5)
    for gpus, keeps, expected in ((0, True, (False, False)), (1, True, (True, False)), (1, False, (False, False))):
        placed = from_dict(with_overrides(load_config(None, []).to_dict(), [f"compute.gpus_per_worker={gpus}"]))
        executor = Executor(run, Recording((first, last)))
        monkeypatch.setattr(executor, "_workers", TrainWorkerPool(placed.compute, run.folder))
        monkeypatch.setattr(TrainWorkerPool, "keeps", keeps)
        assert tuple(type(executor.place(task)) is not RayWorkers for task in (first, last)) == expected
        hosted = [executor.clustering_place(task).hosting is not own_hosts for task in (first, last)]
        assert tuple(hosted) == expected
