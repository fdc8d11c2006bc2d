"""The training step under Ray Train: checkpoints, restarts, and what must not change a result."""

import json
import os
import threading
import time
from contextlib import suppress

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray
import torch

from ray_kplm import config as configuration
from ray_kplm import schemas
from ray_kplm.correspondence.features import ragged, ragged_points
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.methods import build_method
from ray_kplm.methods.labels import Labels, keypoint_labels
from ray_kplm.methods.trainer import NETWORK, load_weights
from ray_kplm.run import Run
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.scaling import ScaleUpRequest
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.train_workers import TrainWorkerPool, train
from ray_kplm.steps.ingest import ingest
from ray_kplm.storage import Folder, copy_file

SMALL = [
    "network.image_size=64", "network.width=32", "network.depth=2", "network.groups=4", "network.descriptor_dim=16",
    "method.landmarks=4", "method.clusters=8", "stage1.batch_size=4", "stage1.rounds=0", "stage1.negative_pairs=200",
    "compute.checkpoint_iterations=5", "compute.precision=fp32",
]  # fmt: skip


class Heard:
    def __init__(self):
        self.news = {}

    def trained(self, iteration, metrics):
        self.news[iteration] = metrics


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, ray_cluster):
    folder = tmp_path_factory.mktemp("category")
    write_category(folder / "source", 40, size=64, test_share=0.2)
    ingest(folder / "source", folder / "dataset", IngestOptions(part_images=8))
    dataset = Dataset.open(folder / "dataset")
    keypoints = Folder.at(folder / "keypoints")
    rng = np.random.default_rng(0)
    for part, rows in zip(dataset.parts("train"), dataset.rows("train"), strict=True):
        ids = dataset.images("train").read_table(part, ["image_id"])["image_id"]
        counts = np.full(rows, 6)
        columns = [
            ids,
            ragged_points(rng.uniform(5, 58, (6 * rows, 2)), counts),
            ragged(np.ones(6 * rows, np.float32), counts),
        ]
        keypoints.write_table(part, pa.Table.from_arrays(columns, schema=schemas.KEYPOINTS))
    return dataset, keypoints


def read_labels(folder: Folder, parts: list[str]) -> Labels:
    return keypoint_labels(folder.read_table(part) for part in parts)


def make_training(dataset, config):
    data, keypoints = dataset
    selection = full_selection(data.parts("train"), data.rows("train"))
    labels = read_labels(keypoints, selection.parts)
    method = build_method(config)
    return Training(
        config,
        method.objective(0),
        labels,
        method.round_plan(0, labels.usable()),
        method.round_schedule(0),
        RoundImages.load(data.images("train"), selection),
        None,
        (config.seed, 1, 0),
    )


def run_step(dataset, target, overrides=(), listener=None):
    config = configuration.load(None, [*SMALL, f"run={target}", *overrides])
    step = Run.start(config).step("train", "train", {"seed": 0}, {})
    train(step, make_training(dataset, config), (listener or Heard()).trained)
    return load_weights(step.folder.read_bytes(NETWORK))


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_trains_reports_and_leaves_its_network_only(dataset, tmp_path):
    heard = Heard()
    run_step(dataset, tmp_path / "run", ["stage1.warmup_iterations=40", "stage1.learning_rate=1e-3"], heard)
    assert sorted(heard.news) == [10, 20, 30, 40]
    assert heard.news[40]["loss"] < heard.news[10]["loss"]
    assert sorted(os.listdir(tmp_path / "run" / "train")) == ["manifest.json", "metrics.json", NETWORK]


def test_workers_read_no_labels_from_storage(dataset, tmp_path):
    """The driver has read them for the plan; the arrays that workers get are read-only."""
    data, keypoints = dataset
    aside = Folder.at(tmp_path / "keypoints")
    for part in data.parts("train"):
        copy_file(keypoints, aside, part)
    config = configuration.load(None, [*SMALL, f"run={tmp_path}/run", "stage1.warmup_iterations=2"])
    training = make_training((data, aside), config)
    aside.delete()
    train(Run.start(config).step("train", "train", {"seed": 0}, {}), training, Heard().trained)
    assert equal(
        load_weights(Folder.at(tmp_path / "run" / "train").read_bytes(NETWORK)),
        run_step(dataset, tmp_path / "whole", ["stage1.warmup_iterations=2"]),
    )


def test_the_same_seed_gives_the_same_network_however_many_data_workers_there_are(dataset, tmp_path):
    options = ["stage1.warmup_iterations=8"]
    one = run_step(dataset, tmp_path / "a", [*options, "compute.data_workers=1"])
    two = run_step(dataset, tmp_path / "b", [*options, "compute.data_workers=2"])
    assert equal(one, two)


def test_two_workers_share_a_batch_and_have_the_gradients_of_one(dataset, tmp_path):
    options = ["stage1.warmup_iterations=1", "stage1.learning_rate=1e-6"]
    step = {}
    for workers in (1, 2):
        run_step(dataset, tmp_path / str(workers), [*options, f"compute.workers={workers}"])
        state = torch.load(tmp_path / str(workers) / "train" / NETWORK, weights_only=True)
        # RMSprop's first step leaves 0.01 g^2, and moves each weight by 10 x rate against the sign of g.
        squares = torch.cat([entry["square_avg"].flatten() for entry in state["optimiser"]["state"].values()])
        step[workers] = (squares * 100).sqrt(), state["network"]
    one, two = step[1][0], step[2][0]
    assert one.max() > 1e-3
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(one.max()))
    name = "backbone.stem.0.weight"
    moved = [step[workers][1][name] for workers in (1, 2)]
    gradient = one[: moved[0].numel()].reshape(moved[0].shape)
    clear = gradient > 0.1 * gradient.max()
    torch.testing.assert_close(moved[0][clear], moved[1][clear], rtol=0, atol=1e-6)


LONGER = ["stage1.warmup_iterations=60"]


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory):
    return run_step(dataset, tmp_path_factory.mktemp("calm") / "run", LONGER)


@pytest.mark.parametrize("workers", ["1", "{min: 1, max: 2}"], ids=["fixed", "elastic"])
def test_a_killed_worker_continues_from_its_last_checkpoint_with_the_same_result(
    dataset, undisturbed, kill_workers, tmp_path, workers
):
    heard, killed = Heard(), []

    def kill_at_iteration_20():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and max(heard.news, default=0) < 20:
            time.sleep(0.05)
        killed.append(kill_workers("RayTrainWorker"))

    thread = threading.Thread(target=kill_at_iteration_20)
    thread.start()
    disturbed = run_step(dataset, tmp_path / "disturbed", [*LONGER, f"compute.workers={workers}"], heard)
    thread.join()
    assert killed == [1]
    assert equal(undisturbed, disturbed)
    first, second = json.loads((tmp_path / "disturbed" / "train" / "manifest.json").read_text())["starts"]
    assert first == 0
    assert second >= 15  # a checkpoint every 5


def test_workers_that_stay_train_what_new_ones_do_also_after_one_was_killed(
    dataset, undisturbed, kill_workers, tmp_path
):
    options = [*LONGER, "compute.rounds_per_fit=3"]
    config = configuration.load(None, [*SMALL, f"run={tmp_path / 'run'}", *options])
    run, pool, processes = Run.start(config), TrainWorkerPool(config.compute, Folder.at(tmp_path / "run")), []

    def stay(name, disturb=lambda iteration: None):
        step = run.step(name, "train", {"name": name}, {})
        pool.train(step, make_training(dataset, config), lambda iteration, metrics: disturb(iteration))
        processes.append(worker_processes())
        return load_weights(step.folder.read_bytes(NETWORK))

    def disturb(iteration):
        if iteration >= 20 and not killed:
            killed.append(kill_workers("RayTrainWorker"))

    killed: list[int] = []
    assert equal(stay("first"), undisturbed)
    assert (tmp_path / "run" / "ray").exists()
    assert equal(stay("second", disturb), undisturbed), "a checkpoint of the first was taken, or none"
    assert killed == [1]
    assert equal(stay("third"), undisturbed)
    first, second, third = processes
    assert len(first) == len(second) == 1
    assert first != second
    assert third == set(), "they were to leave after three trainings"
    assert sorted(os.listdir(tmp_path / "run")) == ["first", "second", "third"]


def test_a_prepared_crew_reserves_nothing_until_it_trains(dataset, tmp_path):
    config = configuration.load(None, [*SMALL, f"run={tmp_path / 'run'}", "stage1.warmup_iterations=20"])
    run, pool, seen = Run.start(config), TrainWorkerPool(config.compute, Folder.at(tmp_path / "run")), []
    until(lambda: not worker_processes("TrainController"))  # of other tests
    pool.prepare(4)
    until(lambda: worker_processes("TrainController"))
    prepared = worker_processes("TrainController")
    time.sleep(2)  # a worker would have come within this
    assert not worker_processes()
    until(all_cpus_are_free)
    pool.train(
        run.step("first", "train", {}, {}),
        make_training(dataset, config),
        lambda iteration, metrics: seen.append(worker_processes("TrainController")),
    )
    assert seen == [prepared] * 2  # no other was started


def test_a_prepared_crew_that_is_not_wanted_is_gone_without_workers(ray_cluster, tmp_path):
    pool = TrainWorkerPool(configuration.load(None, SMALL).compute, Folder.at(tmp_path / "run"))
    until(lambda: not worker_processes("TrainController"))  # of other tests
    pool.prepare(4)
    until(lambda: worker_processes("TrainController"))
    pool.close()
    assert not worker_processes()
    until(lambda: not worker_processes("TrainController"))


def test_more_is_asked_for_when_the_workers_have_theirs(dataset, tmp_path, monkeypatch):
    began = []

    class Asking(ScaleUpRequest):
        def ask(self):
            began.append(worker_processes())

    monkeypatch.setattr("ray_kplm.runtime.train_workers.ScaleUpRequest", Asking)
    run_step(dataset, tmp_path, ["stage1.warmup_iterations=100", "compute.workers={min: 1, max: 2}"])
    assert began
    assert all(len(workers) == 1 for workers in began)


def test_a_crew_goes_on_when_its_controller_is_killed(dataset, undisturbed, kill_workers, tmp_path):
    """Whose workers' CPUs Ray would keep reserved until the run ends."""
    killed: list[int] = []

    class Killing(Heard):
        def trained(self, iteration, metrics):
            if iteration >= 20 and not killed:
                killed.append(kill_workers("TrainController"))

    assert equal(undisturbed, run_step(dataset, tmp_path, LONGER, Killing()))
    assert killed == [1]
    until(all_cpus_are_free)


def all_cpus_are_free():
    return ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def worker_processes(title: str = "RayTrainWorker") -> set[int]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may end meanwhile
            if title in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


def test_no_other_ray_is_asked_whether_a_training_goes_on(dataset, tmp_path):
    """An actor of Ray Train asks the Ray that `ray start` began last on the machine whether the controller lives, and where
    that one does not know it, destroys the workers."""
    seen: dict[str, set[int]] = {"RayTrainWorker": set(), "PlacementGroupCleaner": set()}

    class Looking(Heard):
        def trained(self, iteration, metrics):
            for title, found in seen.items():
                found |= worker_processes(title)

    run_step(dataset, tmp_path, ["stage1.warmup_iterations=20"], Looking())
    assert len(seen["RayTrainWorker"]) == 1
    assert not seen["PlacementGroupCleaner"]


def test_round_images_decode_what_ingest_stored(dataset):
    data, _ = dataset
    selection = full_selection(data.parts("train"), data.rows("train")).sample(5, (3,))
    images = RoundImages.load(data.images("train"), selection)
    part, rows = selection.parts[-1], selection.rows[-1]
    stored = data.images("train").read_table(part, ["width", "height"]).take(rows)
    decoded = images[selection.images - 1]
    assert decoded.shape == (stored["height"][-1].as_py(), stored["width"][-1].as_py(), 3)
    assert len(ray.get(images.refs)) == len(selection.parts)
