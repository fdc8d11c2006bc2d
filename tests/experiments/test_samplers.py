"""Where a sweep looks next: the same after an interruption, never at the same place twice, and better than by chance."""

import math
from dataclasses import replace
from functools import partial

import pytest

from ray_kplm.config import load_config
from ray_kplm.errors import ConfigError
from ray_kplm.experiments.journal import FAILED, FINISHED, RUNNING, STOPPED, Trial
from ray_kplm.experiments.samplers import GRID, RANDOM, TPE, Sampler
from ray_kplm.experiments.space import configured, read_space

BASE = load_config(None, ["method.landmarks=10"])
RATE = "stage1.learning_rate=loguniform:1e-5:1e-1"


def sampler(search, *over, samples=20, seed=0):
    return Sampler(read_space(over, BASE), search, samples, seed, partial(configured, BASE))


def run(suggests, objective, count):
    trials = []
    for number in range(count):
        values = suggests.suggest(trials)
        if values is None:
            break
        trials.append(Trial(number, "", values, FINISHED, objective=objective(values)))
    return trials


def distance(values):
    """From the best learning rate, 1e-3, in decades."""
    return abs(math.log10(values["stage1.learning_rate"]) + 3)


def test_a_grid_ends_with_its_last_combination():
    found = run(sampler(GRID, "seed=0,1", "method.flip=true,false", samples=1), lambda values: 0.0, 99)
    assert [tuple(trial.values.values()) for trial in found] == [(0, True), (0, False), (1, True), (1, False)]


@pytest.mark.parametrize("search", [RANDOM, TPE])
def test_what_comes_next_is_decided_by_what_is_known(search):
    whole = run(sampler(search, RATE, "seed=0,1,2"), distance, 14)
    again = sampler(search, RATE, "seed=0,1,2").suggest(whole[:13])
    assert again == whole[13].values
    assert sampler(search, RATE, "seed=0,1,2", seed=1).suggest(whole[:13]) != again
    assert len({str(trial.values) for trial in whole}) == 14


@pytest.mark.parametrize("search", [RANDOM, TPE])
def test_a_small_space_is_searched_once(search):
    found = run(sampler(search, "seed=0,1,2", "method.flip=true,false"), lambda values: values["seed"], 20)
    assert len(found) == 6
    assert len({str(trial.values) for trial in found}) == 6


def test_draws_that_break_a_rule_together_are_left_out():
    found = run(sampler(RANDOM, "method.landmarks=randint:10:60", "method.clusters=randint:20:60"), lambda v: 0.0, 20)
    assert len(found) == 20
    assert all(trial.values["method.landmarks"] <= trial.values["method.clusters"] for trial in found)


def test_tpe_looks_where_it_was_good():
    def mean(search):
        """After the first ten, which are random."""
        found = run(sampler(search, RATE, samples=30, seed=1), distance, 30)[10:]
        return sum(trial.objective for trial in found) / len(found)

    assert mean(TPE) < 0.75 * mean(RANDOM)  # 0.63 and 1.09 decades


def test_tpe_takes_trials_of_every_state():
    """A place where trials collapse or are stopped is looked at less often than one where they finish well."""
    finished = run(sampler(RANDOM, RATE), distance, 12)
    bad = [
        replace(t, state=FAILED if t.number % 2 else STOPPED, objective=None, reports={} if t.number % 2 else {1: 3.0})
        if distance(t.values) > 1
        else t
        for t in finished
    ]
    trials = [*bad, Trial(12, "", {"stage1.learning_rate": 1e-3}, RUNNING, {0: None})]
    found = [sampler(TPE, RATE, seed=seed).suggest(trials) for seed in range(20)]
    assert sum(distance(values) < 1 for values in found) >= 12  # by chance: half


def test_what_cannot_be_searched_so_is_an_error():
    with pytest.raises(ConfigError, match=r"--search grid: stage1.learning_rate is no list; take --search random"):
        sampler(GRID, RATE, "seed=0,1")
    with pytest.raises(ConfigError, match=r"method.clusters = 20: must be at least method.landmarks = 30"):
        sampler(GRID, "method.landmarks=10,30", "method.clusters=20,50")
    with pytest.raises(ConfigError, match="--samples 0: must be at least 1"):
        sampler(RANDOM, RATE, samples=0)
    with pytest.raises(
        ConfigError, match=r"none of 100 draws is a configuration; .* must be at least method.landmarks"
    ):
        sampler(RANDOM, "method.landmarks=40,50", "method.clusters=20,30").suggest([])
