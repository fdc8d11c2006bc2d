"""A sweep without its runs: what it refuses, what it asks of Tune, and what it publishes as its trials go on."""

import csv
import io
import json
import math
import pickle
from types import SimpleNamespace

import pytest

from ray_kplm.config import load_config
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.experiments import sweep
from ray_kplm.experiments.space import read_space
from ray_kplm.experiments.sweep import SweepOptions, _begin, _definition, _search
from ray_kplm.experiments.sweep_events import SweepEvents
from ray_kplm.experiments.sweep_results import FAILED, FINISHED, STOPPED
from ray_kplm.runtime.tune import GRID, RANDOM, TPE, Halving
from ray_kplm.storage import Folder

BASE = load_config(None, ["dataset=d", "run=r", "method.landmarks=10"])
RATE, SIZE = "stage1.learning_rate=loguniform:1e-5:1e-1", "stage1.batch_size=8,16"


def asked(*over, base=BASE, **options):
    return _search(base, read_space(over, base), SweepOptions(over, **options))


def test_lists_alone_are_a_grid_and_distributions_are_drawn():
    assert asked(SIZE, "seed=0,1").algorithm == GRID
    assert asked(SIZE, "seed=0,1").samples == 1
    assert asked(SIZE, "seed=0,1").space == {
        "stage1.batch_size": ("grid_search", [8, 16]),
        "seed": ("grid_search", [0, 1]),
    }
    drawn = asked(SIZE, RATE, "method.clusters=randint:50:200")
    assert (drawn.algorithm, drawn.samples) == (RANDOM, 20)
    assert drawn.space == {
        "stage1.batch_size": ("choice", [8, 16]), "stage1.learning_rate": ("loguniform", 1e-5, 1e-1),
        "method.clusters": ("randint", 50, 200),
    }  # fmt: skip
    assert asked(SIZE, search=TPE, samples=3, seed=7).seed == 7


def test_what_cannot_be_searched_so_is_an_error(monkeypatch):
    with pytest.raises(ConfigError, match=r"--search grid: stage1.learning_rate is no list"):
        asked(RATE, "seed=0,1", search=GRID)
    with pytest.raises(ConfigError, match=r"method.clusters = 20: must be at least method.landmarks = 30"):
        asked("method.landmarks=10,30", "method.clusters=20,50")
    with pytest.raises(ConfigError, match="samples = 0: must be 1 to 1,000,000"):
        asked(RATE, samples=0)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"--search tpe: needs Optuna; pip install"):
        asked(RATE, search=TPE)


def test_a_sweep_continues_only_as_it_was_begun(tmp_path):
    folder = Folder.at(tmp_path / "sweep")

    def begin(*over, layout=(), **options):
        space = read_space(over, BASE)
        config = load_config(None, ["dataset=d", f"run={folder}", "method.landmarks=10", *layout])
        _begin(folder, _definition(config, space, RANDOM, "label_free", SweepOptions(over, **options)))

    begin(SIZE)
    begin(SIZE, samples=99, max_concurrent=3, layout=["compute.max_failures=9"])
    with pytest.raises(RunError, match=r"--over stage1.batch_size was '8,16', is '8,32'; --seed was 0, is 1. Set run="):
        begin("stage1.batch_size=8,32", seed=1)
    with pytest.raises(RunError, match=r"--grace-rounds was None, is 2; --reduction was None, is 3.0"):
        begin(SIZE, halving=Halving(2))


def test_a_folder_of_something_else_or_of_an_earlier_version_stays_as_it_is(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(RunError, match="is not empty and no sweep"):
        _begin(Folder.at(tmp_path), {})
    earlier = tmp_path / "earlier"
    (earlier / "trials").mkdir(parents=True)
    (earlier / "sweep.json").write_text("{}")
    with pytest.raises(RunError, match=r"begun by a version that .* drew HIGH of randint too"):
        _begin(Folder.at(earlier), {})


class Group:
    def __init__(self):
        self.best, self.files = [], {}

    def log_metrics(self, values, step):
        self.best.append((step, values["best/objective"]))

    def log_file(self, name, content):
        self.files[name] = content


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes the driver's view of a sweep of three trials; its generic keypoints are known."""
    monkeypatch.setattr(SweepEvents, "_find_keypoints", lambda *given: None)
    space = read_space([SIZE, "seed=0,1"], BASE)
    dataset = SimpleNamespace(meta={"name": "cats"}, root=Folder.at(tmp_path))

    def trials():
        lines = []
        made = SweepEvents(
            Folder.at(tmp_path), BASE, space, "label_free", dataset, 3, Group(), lambda share, text: lines.append(text)
        )
        return made, lines

    return trials


def test_trials_are_published_as_they_end(make, tmp_path):
    trials, lines = make()
    trials.began()
    for number, size in enumerate((8, 16, 8)):
        trials.started(f"{number:03d},x", {"stage1.batch_size": size, "seed": 0})
        trials.reported(f"{number:03d},x", {"objective": 9.0 - number, "round": 0, "done": False})
        trials.reported(f"{number:03d},x", {"objective": math.inf, "round": 1, "done": False})
    trials.ended("001,x", {"objective": 5.0, "figures": {"coverage": 30.0}}, "")
    trials.ended("002,x", None, "")
    trials.ended("000,x", {"objective": math.inf, "error": "too few points"}, "too few points")
    results = json.loads((tmp_path / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == [FAILED, FINISHED, STOPPED]
    assert [trial["final"] for trial in results["trials"]] == [True, False, False]
    assert results["trials"][2]["reports"] == {"0": 7.0, "1": None}
    assert results["best"]["number"] == 1
    assert results["best"]["figures"] == {"coverage": 30.0}
    assert load_config(tmp_path / "best.yaml").stage1.batch_size == 16
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))) == 3
    assert trials._group.best == [(1, 5.0), (2, 5.0), (3, 5.0)]
    assert set(trials._group.files) == {"best.yaml", "results.json", "results.csv", "index.html"}
    assert lines[0] == "begins; 0 of 3 trials done"
    assert lines[-1] == "trial 0 failed: too few points; 3 of 3 trials done; best 5.00, trial 1"


def test_a_sweep_continues_with_the_trials_that_tune_kept(make):
    trials, _ = make()
    trials.started("000,x", {"stage1.batch_size": 8, "seed": 0})
    trials.ended("000,x", None, "storage is full")
    trials.started("001,x", {"stage1.batch_size": 16, "seed": 0})
    trials.reported("001,x", {"objective": 4.0, "round": 0})
    again, lines = make()
    again.state = pickle.loads(pickle.dumps(trials.state))
    again.began()
    assert lines == ["continues; 1 of 3 trials done"]
    assert [trial.is_over for trial in again.trials] == [False, False]
    again.started("001,x", {"stage1.batch_size": 16, "seed": 0})
    again.started("000,x", {"stage1.batch_size": 8, "seed": 0})
    assert [trial.error for trial in again.trials] == ["", ""]
    assert again.trials[1].reports == {0: 4.0}


def test_impossible_values_reserve_what_the_others_do():
    assert sweep._compute(BASE, {"method.clusters": 5}) == BASE.compute
    assert sweep._compute(BASE, {"compute.workers": 2}).workers == 2
