"""Trials through Ray Tune: searches that continue, weak trials that stop, and what today's Ray Tune leaves to us."""

import inspect
import math
import os
import signal
import threading
import time
from functools import partial

import pytest
import ray
from ray import tune

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import CollapseError, ConfigError, RunError
from ray_kplm.runtime.tune import OBJECTIVE, RANDOM, ROUND, TPE, Halving, Search, _reservation, _searcher, run_trials
from ray_kplm.storage import Folder

SPACE = {
    "rate": ("loguniform", 1e-5, 1e-1), "whole": ("randint", 0, 3), "log": ("lograndint", 1, 4),
    "kind": ("choice", ["a", "b"]),
}  # fmt: skip
HEAD = "node:__internal_head__"


class Events:
    """Keeps what happens; its state is that of all processes, and it cannot be pickled itself."""

    def __init__(self, folder=None):
        self.folder, self.state = folder, {}
        self.log, self.lock = [], threading.Lock()

    def began(self):
        self.log.append(("began", dict(self.state)))

    def started(self, name, values):
        self.log.append(("started", name))
        if self.folder:
            (self.folder / f"started {name}").touch()
        self.state.setdefault(name, {"values": values})

    def reported(self, name, metrics):
        self.log.append((name, metrics[ROUND]))

    def ended(self, name, metrics, error):
        self.state[name].update(metrics=metrics, error=error)


def run(trial, search, folder, events=None, progress=lambda share, text: None, max_concurrent=2):
    events = events or Events()
    grid = run_trials(
        trial, search, events, name=lambda number, values: f"{number:03d}", compute=lambda values: ComputeConfig(),
        max_concurrent=max_concurrent, folder=Folder.at(folder / "tune"), progress=progress,
    )  # fmt: skip
    return events, grid


def grid_of(*values, halving=None):
    return Search({"x": ("grid_search", list(values))}, metric=OBJECTIVE, halving=halving)


def values_of(events):
    return {name: state["values"] for name, state in events.state.items()}


def bowl(name, values, progress, report):
    """Is best at a rate of 1e-3."""
    return {OBJECTIVE: abs(math.log10(values["rate"]) + 3), "figures": {"nothing": None, "whole": values["whole"]}}


def in_rounds(folder, name, values, progress, report):
    """Reports x after each of four rounds, and needs a while to clean up when it is stopped."""
    x = values["x"]
    try:
        for number in range(4):
            progress(number / 4, f"x is {x}")
            report({OBJECTIVE: float(x), ROUND: number})
    except BaseException:
        time.sleep(2)
        (folder / f"cleaned up {x}").touch()
        raise
    return {OBJECTIVE: float(x)}


def ever_worse(folder, name, values, progress, report):
    return in_rounds(folder, name, {"x": int(name)}, progress, report)


def failing(folder, name, values, progress, report):
    x = values["x"]
    report({OBJECTIVE: float(x), ROUND: 0})
    first = not (folder / f"tried {x}").exists()
    (folder / f"tried {x}").touch()
    if x == 1:
        raise CollapseError("too few points")
    if x == 2 and (folder / "broken").exists():
        raise RunError("storage is full")
    if x == 3 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return {OBJECTIVE: float(x)}


def test_the_result_grid_has_scalars_of_each_round_and_of_the_end(ray_cluster, tmp_path):
    lines = []
    events, grid = run(partial(in_rounds, tmp_path), grid_of(5, 4), tmp_path, progress=lambda *line: lines.append(line))
    assert grid.get_best_result().config == {"x": 4}
    assert [result.metrics[OBJECTIVE] for result in grid] == [5.0, 4.0]
    frame = grid[1].metrics_dataframe
    assert frame[OBJECTIVE].tolist() == [4.0] * 5
    assert frame[ROUND].tolist()[:4] == [0, 1, 2, 3]
    assert tune.ResultGrid(tune.ExperimentAnalysis(str(tmp_path / "tune"))).num_terminated == 2
    assert [entry for entry in events.log if entry[0] == "000"] == [("000", number) for number in range(4)]
    assert (0.25, "001: x is 4") in lines


def needs_a_start(folder, name, values, progress, report):
    assert (folder / f"started {name}").exists()
    return {OBJECTIVE: 0.0}


def test_a_trial_starts_after_the_event_of_its_start(ray_cluster, tmp_path):
    """The driver finds there what all trials share."""
    events, _ = run(partial(needs_a_start, tmp_path), grid_of(1, 2), tmp_path, Events(tmp_path))
    assert [state["error"] for state in events.state.values()] == ["", ""]


def test_trials_that_fail_end_nothing_but_themselves(ray_cluster, tmp_path):
    (tmp_path / "broken").touch()
    trial = partial(failing, tmp_path)
    events, grid = run(trial, grid_of(1, 2, 3, 4), tmp_path)
    ended = {name: (state["error"], state["metrics"] is None) for name, state in events.state.items()}
    assert ended == {
        "000": ("too few points", False), "001": ("storage is full", True), "002": ("", False), "003": ("", False),
    }  # fmt: skip
    assert grid[0].metrics[OBJECTIVE] == math.inf
    assert [entry for entry in events.log if entry[0] == "002"] == [("002", 0), ("002", 0)]  # its process was killed
    assert len(grid.errors) == 1

    (tmp_path / "broken").unlink()
    again, grid = run(trial, grid_of(1, 2, 3, 4), tmp_path)
    assert [entry for entry in again.log if entry[0] != "began"] == [("started", "001"), ("001", 0)]
    assert again.state["001"]["error"] == ""
    assert again.state.keys() == events.state.keys()
    assert len(grid.errors) == 0


@pytest.mark.parametrize("algorithm", [pytest.param(RANDOM, marks=pytest.mark.slow), TPE])
def test_the_same_seed_gives_the_same_trials_also_when_more_are_asked_for_later(ray_cluster, tmp_path, algorithm):
    def search(samples, seed=0):
        return Search(SPACE, algorithm, samples, seed, OBJECTIVE)

    whole, _ = run(bowl, search(3), tmp_path / "whole", max_concurrent=1)
    values = values_of(whole)
    assert list(values) == ["000", "001", "002"]
    run(bowl, search(1), tmp_path / "parts", max_concurrent=1)
    parts, grid = run(bowl, search(3), tmp_path / "parts", max_concurrent=1)
    assert values_of(parts) == values
    assert [name for what, name in parts.log if what == "started"] == ["001", "002"]
    assert len(grid) == 3
    other, _ = run(bowl, search(1, seed=1), tmp_path / "other")
    assert values_of(other)["000"] != values["000"]
    for drawn in values.values():
        assert 1e-5 <= drawn["rate"] <= 1e-1
        assert drawn["whole"] in {0, 1, 2}
        assert drawn["log"] in {1, 2, 3}
        assert drawn["kind"] in {"a", "b"}


def test_tpe_suggests_what_was_good():
    """The first ten are random; random ones are a decade from the best rate on average."""
    search = Search({"rate": ("loguniform", 1e-5, 1e-1)}, TPE, 30, 0, OBJECTIVE)
    searcher = _searcher(search).searcher
    searcher.set_search_properties(OBJECTIVE, "min", {"rate": tune.loguniform(1e-5, 1e-1)})
    distances = []
    for number in range(30):
        distances.append(abs(math.log10(searcher.suggest(str(number))["rate"]) + 3))
        searcher.on_trial_complete(str(number), {OBJECTIVE: distances[-1]})
    assert sum(distances[10:]) / 20 < 0.75


def test_weak_trials_are_stopped_and_give_their_place_to_the_next_one(ray_cluster, tmp_path):
    search = grid_of(3, 4, 2, 5, 1, halving=Halving(1, 3))
    events, grid = run(partial(in_rounds, tmp_path), search, tmp_path, max_concurrent=1)
    stopped = {name for name, state in events.state.items() if state["metrics"] is None}
    assert stopped == {"001", "003"}
    assert {state["error"] for state in events.state.values()} == {""}
    assert [entry for entry in events.log if entry[0] == "001"] == [("001", 0), ("001", 1)]
    assert {path.name for path in tmp_path.glob("cleaned up *")} == {"cleaned up 4", "cleaned up 5"}
    assert grid.num_terminated == 5
    deadline = time.monotonic() + 30
    while ray.available_resources()[HEAD] != 1.0:
        assert time.monotonic() < deadline, "what Tune reserved was not given back"
        time.sleep(0.1)


def test_successive_halving_continues_with_what_it_has_seen(ray_cluster, tmp_path):
    def search(samples):
        return Search({"x": ("uniform", 0, 1)}, RANDOM, samples, 0, OBJECTIVE, Halving(1, 3))

    run(partial(ever_worse, tmp_path), search(1), tmp_path)
    events, _ = run(partial(ever_worse, tmp_path), search(2), tmp_path)
    assert events.state["000"]["metrics"] is not None
    assert events.state["001"]["metrics"] is None, "a worse trial than one of the earlier process went on"


def test_an_impossible_halving_is_an_error():
    with pytest.raises(ConfigError, match=r"reduction = 1: must be above 1 to 1000"):
        Halving(1, 1)
    with pytest.raises(ConfigError, match=r"grace = 0: must be 1 to 100,000"):
        Halving(0)


def test_a_trial_reserves_the_share_of_the_cluster_that_its_run_needs(ray_cluster):
    """The cluster has four CPUs, of which one serves all runs, and a GPU."""

    def side_by_side(compute, max_concurrent=None):
        (bundle,) = _reservation(compute, max_concurrent).bundles
        assert list(bundle) == [HEAD]
        return math.floor(1 / bundle[HEAD])

    small = ComputeConfig(cpus_per_worker=0.5, data_workers=0)
    assert side_by_side(ComputeConfig()) == 1  # 2 of 3
    assert side_by_side(small) >= 3
    assert side_by_side(ComputeConfig(cpus_per_worker=0.5, data_workers=0, gpus_per_worker=0.5)) == 2
    assert side_by_side(ComputeConfig(workers=9)) == 1  # it waits for nodes
    assert side_by_side(ComputeConfig(workers=9), max_concurrent=3) == 3


def test_tune_ends_the_process_of_a_function_that_it_stops_while_that_cleans_up(ray_cluster, tmp_path):
    """Why trials are a class, and wait in `cleanup`. If this fails, a function that calls `tune.report` will do."""

    def trainable(config):
        try:
            for number in range(3):
                tune.report({OBJECTIVE: config["x"], ROUND: number})
        finally:
            time.sleep(5)
            (tmp_path / f"cleaned up {config['x']}").touch()

    tune.run(
        tune.with_resources(trainable, {"CPU": 0.01}), config={"x": tune.grid_search([1, 2])}, metric=OBJECTIVE, mode="min",
        search_alg=tune.search.BasicVariantGenerator(max_concurrent=1), name="tune", storage_path=str(tmp_path), verbose=0,
        scheduler=tune.schedulers.ASHAScheduler(time_attr=ROUND, max_t=9, grace_period=1, stop_last_trials=False),
    )  # fmt: skip
    time.sleep(6)
    assert not (tmp_path / "cleaned up 2").exists()


def test_tune_does_not_keep_the_state_of_a_scheduler(ray_cluster, tmp_path):
    """Why a callback keeps it. If this fails, Tune does so itself."""
    run(partial(in_rounds, tmp_path), grid_of(1, 2, halving=Halving(1, 3)), tmp_path)
    kept = {path.name.split("-")[0] for path in (tmp_path / "tune").glob("*-*")}
    assert kept == {"basic", "callback", "experiment_state"}


def test_a_restored_tuner_takes_its_settings_from_the_first_start():
    """Why `tune.run` starts the experiment. If this fails, `Tuner.restore` may do."""
    known = set(inspect.signature(tune.Tuner.restore).parameters)
    assert not known & {"tune_config", "run_config", "num_samples", "search_alg", "callbacks"}


def test_the_head_node_has_a_resource_of_its_own(ray_cluster):
    """Trials reserve their share of it."""
    assert ray.cluster_resources()[HEAD] == 1.0
