"""What a sweep knows, on storage: another process finds it as it was."""

import pytest

from ray_kplm.errors import RunError
from ray_kplm.experiments.halving import Halving
from ray_kplm.experiments.journal import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    Journal,
    Trial,
    best,
    ranked,
    read_trial,
    run_name,
    short_names,
)
from ray_kplm.storage import Folder

VALUES = {"stage1.batch_size": 8, "stage1.learning_rate": 4e-4}


@pytest.fixture
def folder(tmp_path):
    return Folder.at(tmp_path / "sweep")


def test_the_tree_and_what_another_process_reads(folder):
    journal = Journal(folder)
    journal.begin({"seed": 0})
    trial = journal.add(VALUES)
    assert trial.name == "000,batch_size=8,learning_rate=0.0004"
    trial = journal.update(trial, reports={0: 9.5, 1: None})
    assert folder.names() == ["sweep.json"]
    assert (folder / "trials").names() == ["00000.json"]
    assert read_trial(folder, 0) == trial
    assert Journal(folder).trials == [trial]
    assert Journal(folder).named(trial.name) == trial
    assert Journal(folder).add(VALUES | {"stage1.batch_size": 16}).number == 1


def test_what_is_left_to_do_after_an_interruption(folder):
    journal = Journal(folder)
    for _ in range(5):
        journal.add(VALUES)
    _, finished, stopped, unlucky, collapsed = journal.trials
    journal.update(finished, state=FINISHED, objective=3.0)
    journal.update(stopped, state=STOPPED, reports={1: 9.0})
    journal.update(unlucky, state=FAILED, error="a node died")
    journal.update(collapsed, state=FAILED, error="too few points", final=True)
    assert [trial.number for trial in Journal(folder).unfinished()] == [0, 3]


def test_a_verdict_is_kept_with_the_objective_and_is_final(folder):
    journal, halving = Journal(folder), Halving(1, 2)
    for _ in range(3):
        journal.add(VALUES)

    def report(number, round_number, value):
        return journal.report(journal.trials[number], round_number, value, 4, halving).state

    assert report(0, 0, 9.0) == report(1, 0, 1.0) == RUNNING  # no rung
    assert report(0, 1, 5.0) == RUNNING
    assert report(1, 1, 6.0) == STOPPED
    assert Journal(folder).trials[1].reports == {0: 1.0, 1: 6.0}
    assert report(2, 1, 4.0) == RUNNING
    assert report(0, 1, 7.0) == RUNNING  # said again, after a restart: as it was
    assert journal.trials[0].reports == {0: 9.0, 1: 5.0}
    assert report(1, 2, 0.0) == STOPPED
    assert journal.trials[1].reports == {0: 1.0, 1: 6.0}
    assert journal.report(journal.trials[2], 2, 9.0, 4, None).state == RUNNING  # without halving nobody is stopped


def test_a_sweep_goes_on_only_as_it_was_begun(folder):
    Journal(folder).begin({"seed": 0, "--over stage1.batch_size": "8,16"})
    Journal(folder).begin({"seed": 0, "--over stage1.batch_size": "8,16"})
    with pytest.raises(RunError, match=r"--over stage1.batch_size was '8,16', is '8,32'; seed was 0, is 1. Set run="):
        Journal(folder).begin({"seed": 1, "--over stage1.batch_size": "8,32"})


def test_a_folder_of_something_else_is_left_alone(folder):
    folder.write_bytes("photo.jpg", b"")
    with pytest.raises(RunError, match="is not empty and no sweep"):
        Journal(folder).begin({})
    assert folder.names() == ["photo.jpg"]


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
    name = run_name({"keypoints.file": "/data/a b.parquet", "stage1.decay_at": [0.5, 0.9], "method.flip": True}, "012")
    assert name == "012,file=_data_a_b.parquet,decay_at=_0.5,_0.9_,flip=true"
    assert len(run_name({f"stage1.{'x' * 30}{i}": 1.0 for i in range(9)}, "000")) == 120
