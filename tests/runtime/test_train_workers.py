"""Training under Ray Train: checkpoints, restarts, and what must not change a result."""

import json
import os
import threading
import time
from contextlib import suppress
from functools import partial

import psutil
import pytest
import ray
import torch

from ray_kplm import config as configuration
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.methods import build_method
from ray_kplm.methods.labels import CarriedLabels, Labels, keypoint_labels
from ray_kplm.methods.trainer import NETWORK, load_weights
from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.run import Run
from ray_kplm.runtime.scaling import ScaleUpRequest
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.train_workers import TrainWorkerPool, train
from ray_kplm.runtime.window_feed import feed_windows
from ray_kplm.runtime.window_store import LabelledParts, WindowImages
from ray_kplm.storage import Folder, copy_file

LONGER = ["stage1.warmup_iterations=60"]


class Metrics:
    """A metrics callback that keeps what it gets: iteration -> metrics."""

    def __init__(self):
        self.by_iteration = {}

    def __call__(self, iteration, metrics):
        self.by_iteration[iteration] = metrics


def labels_of_part(folder: Folder, part: str) -> Labels:
    return keypoint_labels([folder.read_table(part)])


@pytest.fixture(scope="module")
def run_step(make_training, training_config):
    """Train in a new run directory; return the network's weights."""

    def run(target, overrides=(), on_metrics=None):
        config = configuration.load_config(None, [*training_config, f"run={target}", *overrides])
        step = Run.start(config).step("train", "train", {"seed": 0}, {})
        train(step, make_training(config), on_metrics or Metrics())
        return load_weights(step.folder.read_bytes(NETWORK))

    return run


@pytest.fixture(scope="module")
def undisturbed(run_step, tmp_path_factory):
    """The weights after LONGER without any fault."""
    return run_step(tmp_path_factory.mktemp("undisturbed") / "run", LONGER)


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def all_cpus_are_free():
    return ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def worker_processes(title: str = "RayTrainWorker") -> set[int]:
    """Process ids of this Ray's workers whose title has the text in it."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may have ended
            if title in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


def test_a_step_reports_a_falling_loss_and_leaves_its_network_only(run_step, tmp_path):
    metrics = Metrics()
    run_step(tmp_path / "run", ["stage1.warmup_iterations=40"], metrics)
    assert sorted(metrics.by_iteration) == [10, 20, 30, 40]
    assert metrics.by_iteration[40]["loss"] < metrics.by_iteration[10]["loss"]
    assert sorted(os.listdir(tmp_path / "run" / "train")) == ["manifest.json", "metrics.json", NETWORK]


@pytest.mark.slow
def test_workers_read_no_labels_from_storage(keypoints, make_training, training_config, run_step, tmp_path):
    """The driver has read them for the plan; the arrays that workers get are read-only."""
    copy = Folder.at(tmp_path / "keypoints")
    for part in keypoints.parts():
        copy_file(keypoints, copy, part)
    config = configuration.load_config(None, [*training_config, f"run={tmp_path}/run", "stage1.warmup_iterations=2"])
    training = make_training(config, copy)
    copy.delete()
    train(Run.start(config).step("train", "train", {"seed": 0}, {}), training, Metrics())
    assert equal(
        load_weights(Folder.at(tmp_path / "run" / "train").read_bytes(NETWORK)),
        run_step(tmp_path / "undeleted", ["stage1.warmup_iterations=2"]),
    )


@pytest.mark.slow
def test_the_number_of_data_workers_does_not_change_the_network(run_step, tmp_path):
    options = ["stage1.warmup_iterations=8"]
    one = run_step(tmp_path / "a", [*options, "compute.data_workers=1"])
    two = run_step(tmp_path / "b", [*options, "compute.data_workers=2"])
    assert equal(one, two)


@pytest.mark.slow
def test_two_workers_share_a_batch_and_have_the_gradients_of_one(run_step, tmp_path):
    options = ["stage1.warmup_iterations=1", "stage1.learning_rate=1e-6"]
    step = {}
    for workers in (1, 2):
        run_step(tmp_path / str(workers), [*options, f"compute.workers={workers}"])
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


@pytest.mark.parametrize(
    "workers", ["1", pytest.param("{min: 1, max: 2}", marks=pytest.mark.slow)], ids=["fixed", "elastic"]
)
def test_a_killed_worker_continues_from_its_last_checkpoint_with_the_same_result(
    run_step, undisturbed, kill_workers, tmp_path, workers
):
    metrics, killed = Metrics(), []

    def kill_at_iteration_20():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and max(metrics.by_iteration, default=0) < 20:
            time.sleep(0.05)
        killed.append(kill_workers("RayTrainWorker"))

    thread = threading.Thread(target=kill_at_iteration_20)
    thread.start()
    disturbed = run_step(tmp_path / "disturbed", [*LONGER, f"compute.workers={workers}"], metrics)
    thread.join()
    assert killed == [1]
    assert equal(undisturbed, disturbed)
    first, second = json.loads((tmp_path / "disturbed" / "train" / "manifest.json").read_text())["starts"]
    assert first == 0
    assert second in range(5, 60, 5), "it did not continue from a checkpoint"


@pytest.mark.slow
def test_a_worker_that_is_killed_within_a_window_continues_with_the_same_result(
    small_dataset, keypoints, training_config, kill_workers, tmp_path
):
    """Stage 2 on windows of one part: twelve images, three iterations."""
    selection = full_selection(small_dataset.parts("train"), small_dataset.rows("train"))
    parts = LabelledParts(small_dataset.images("train"), selection, partial(labels_of_part, keypoints))

    def train_step(name, on_metrics):
        config = configuration.load_config(None, [*training_config, f"run={tmp_path / name}"])
        method = build_method(config)
        plan = WindowPlan(len(selection.parts), selection.images, 40, 4, False, (0,), window_parts=1)
        training = Training(
            config, method.landmark_objective(6), CarriedLabels(), plan, method.landmark_schedule(0),
            WindowImages.open(plan, parts), None, (0, 2, 0), feed_windows,
        )  # fmt: skip
        step = Run.start(config).step("train", "train", {"seed": 0}, {})
        manifest = train(step, training, on_metrics)
        return load_weights(step.folder.read_bytes(NETWORK)), manifest["starts"]

    def disturb(iteration, metrics):
        if iteration >= 20 and not killed:
            killed.append(kill_workers("RayTrainWorker"))

    killed: list[int] = []
    undisturbed, starts = train_step("undisturbed", lambda iteration, metrics: None)
    assert starts == [0]
    disturbed, (first, second) = train_step("disturbed", disturb)
    assert killed == [1]
    assert first == 0
    assert second in (5, 10, 15, 20, 25, 30, 35), "it did not continue from a checkpoint"
    assert equal(undisturbed, disturbed)


@pytest.mark.slow
def test_kept_workers_train_what_new_ones_do_also_after_one_was_killed(
    make_training, training_config, undisturbed, kill_workers, tmp_path
):
    options = [*LONGER, "compute.rounds_per_fit=3"]
    config = configuration.load_config(None, [*training_config, f"run={tmp_path / 'run'}", *options])
    run, pool, processes = Run.start(config), TrainWorkerPool(config.compute, Folder.at(tmp_path / "run")), []

    def train_step(name, disturb=lambda iteration: None):
        step = run.step(name, "train", {"name": name}, {})
        pool.train(step, make_training(config), lambda iteration, metrics: disturb(iteration))
        processes.append(worker_processes())
        return load_weights(step.folder.read_bytes(NETWORK))

    def disturb(iteration):
        if iteration >= 20 and not killed:
            killed.append(kill_workers("RayTrainWorker"))

    killed: list[int] = []
    assert equal(train_step("first"), undisturbed)
    assert (tmp_path / "run" / "ray").exists()
    assert equal(train_step("second", disturb), undisturbed), "a checkpoint of the first was taken, or none"
    assert killed == [1]
    assert equal(train_step("third"), undisturbed)
    first, second, third = processes
    assert len(first) == len(second) == 1
    assert first != second
    assert third == set(), "the pool must close after three trainings"
    assert sorted(os.listdir(tmp_path / "run")) == ["first", "second", "third"]


@pytest.mark.slow
def test_a_prepared_pool_reserves_nothing_until_it_trains(make_training, training_config, tmp_path):
    config = configuration.load_config(
        None, [*training_config, f"run={tmp_path / 'run'}", "stage1.warmup_iterations=20", "compute.rounds_per_fit=1"]
    )
    run, pool, controllers = Run.start(config), TrainWorkerPool(config.compute, Folder.at(tmp_path / "run")), []
    until(lambda: not worker_processes("TrainController"))  # of other tests
    pool.prepare(4)
    until(lambda: worker_processes("TrainController"))
    prepared = worker_processes("TrainController")
    time.sleep(2)  # long enough for a worker to start
    assert not worker_processes()
    until(all_cpus_are_free)
    pool.train(
        run.step("first", "train", {}, {}),
        make_training(config),
        lambda iteration, metrics: controllers.append(worker_processes("TrainController")),
    )
    assert controllers == [prepared] * 2, "another controller was started"


@pytest.mark.slow
def test_a_prepared_pool_that_is_closed_unused_leaves_no_process(training_config, tmp_path, ray_cluster):
    pool = TrainWorkerPool(configuration.load_config(None, training_config).compute, Folder.at(tmp_path / "run"))
    until(lambda: not worker_processes("TrainController"))  # of other tests
    pool.prepare(4)
    until(lambda: worker_processes("TrainController"))
    pool.close()
    assert not worker_processes()
    until(lambda: not worker_processes("TrainController"))


@pytest.mark.slow
def test_more_workers_are_requested_only_after_the_first_ones_started(run_step, tmp_path, monkeypatch):
    at_request = []

    class Request(ScaleUpRequest):
        def submit(self):
            at_request.append(worker_processes())

    monkeypatch.setattr("ray_kplm.runtime.worker_group.ScaleUpRequest", Request)
    run_step(tmp_path, ["stage1.warmup_iterations=100", "compute.workers={min: 1, max: 2}"])
    assert at_request
    assert all(len(workers) == 1 for workers in at_request)


@pytest.mark.slow
def test_training_continues_when_its_controller_is_killed(run_step, undisturbed, kill_workers, tmp_path):
    """Ray would keep the CPUs of its workers reserved until the run ends."""
    killed: list[int] = []

    def kill_controller(iteration, metrics):
        if iteration >= 20 and not killed:
            killed.append(kill_workers("TrainController"))

    assert equal(undisturbed, run_step(tmp_path, LONGER, kill_controller))
    assert killed == [1]
    until(all_cpus_are_free)


@pytest.mark.slow
def test_training_starts_no_process_that_asks_another_ray_about_it(run_step, tmp_path):
    """An actor of Ray Train asks the Ray that `ray start` began last on the machine whether the controller lives, and
    destroys the workers where that Ray does not know it (Ray 2.60)."""
    seen: dict[str, set[int]] = {"RayTrainWorker": set(), "PlacementGroupCleaner": set()}

    def look(iteration, metrics):
        for title, found in seen.items():
            found |= worker_processes(title)

    run_step(tmp_path, ["stage1.warmup_iterations=20"], look)
    assert len(seen["RayTrainWorker"]) == 1
    assert not seen["PlacementGroupCleaner"]
