"""The trials of a sweep: which is best, which are over, and their names."""

import json
from dataclasses import asdict

from ray_kplm.experiments.sweep_results import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    Trial,
    best,
    from_dict,
    ranked,
    run_name,
    short_names,
)


def test_a_trial_is_the_same_after_json():
    trial = Trial(3, "003", {"seed": 1, "stage1.decay_at": "[0.5]"}, FINISHED, {0: 9.5, 1: None}, 8.0, {"nme": None})
    assert from_dict(json.loads(json.dumps(asdict(trial)))) == trial


def test_interrupted_trials_and_failures_that_may_pass_are_not_over():
    trials = [
        Trial(0, "", {}, RUNNING),
        Trial(1, "", {}, FINISHED, objective=3.0),
        Trial(2, "", {}, STOPPED, {1: 9.0}),
        Trial(3, "", {}, FAILED, error="a node died"),
        Trial(4, "", {}, FAILED, error="too few points", final=True),
    ]
    assert [trial.is_over for trial in trials] == [False, True, True, False, True]


def test_the_best_is_finished_and_comes_first():
    trials = [
        Trial(0, "", {}, STOPPED, {1: 1.0}),
        Trial(1, "", {}, FINISHED, {1: 9.0}, objective=5.0),
        Trial(2, "", {}, FINISHED, {1: 9.0}, objective=4.0),
        Trial(3, "", {}, FINISHED, {1: None}, objective=None),
        Trial(4, "", {}, STOPPED, {1: 8.0, 2: 7.0}),
        Trial(5, "", {}, FAILED, error="lost"),
    ]
    assert best(trials) == trials[2]
    assert best(trials[:1]) is None
    assert [trial.number for trial in ranked(trials)] == [2, 1, 3, 4, 0, 5]
    assert trials[4].last == 7.0


def test_names_are_short_and_fit_for_folders():
    assert short_names(["stage1.batch_size", "stage2.batch_size", "seed"]) == {
        "stage1.batch_size": "stage1.batch_size", "stage2.batch_size": "stage2.batch_size", "seed": "seed",
    }  # fmt: skip
    name = run_name(
        12, {"keypoints.file": "/data/a b.parquet", "stage1.decay_at": "[0.5, 0.9]", "stage2.flip_at_test": True}
    )
    assert name == "012,file=_data_a_b.parquet,decay_at=_0.5,_0.9_,flip_at_test=true"
    assert len(run_name(0, {f"stage1.{'x' * 30}{i}": 1.0 for i in range(9)})) == 120
