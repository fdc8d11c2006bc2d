"""Which checkpoint a driver goes on from that takes over a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ray_kplm.runtime import checkpoints
from ray_kplm.runtime.checkpoints import POSITION, STATE, inherit_checkpoint, position_of
from ray_kplm.storage import Folder, copy_file

JOB = "f" * 64


def leave(driver: Path, number: int, iteration: int, job: str = JOB, *, complete: bool = True) -> Path:
    """A checkpoint as Ray Train leaves it in the folder of a driver."""
    folder = driver / f"checkpoint_2026-01-01_00-00-{number:02d}"
    folder.mkdir(parents=True)
    (folder / STATE).write_bytes(f"{driver.name} {iteration}".encode())
    (folder / POSITION).write_text(json.dumps({"job": job, "iteration": iteration}))
    registry = driver / "checkpoint_manager_snapshot.json"
    names = json.loads(registry.read_text()) if registry.exists() else []
    registry.write_text(json.dumps([*names, folder.name] if complete else names))
    return folder


@pytest.fixture
def inherit(tmp_path):
    """The state and the iteration that the driver `mine` begins with; None: from the start."""

    def call() -> tuple[str, int] | None:
        ray = Folder.at(tmp_path / "ray")
        copy = inherit_checkpoint(ray, ray / "mine", JOB)
        if copy is None:
            return None
        assert copy.parent.path == ray.path
        return copy.read_bytes(STATE).decode(), position_of(copy.read_json(POSITION)).iteration

    return call


def test_there_is_nothing_to_inherit_in_a_new_run(inherit, tmp_path):
    assert inherit() is None
    assert not (tmp_path / "ray").exists()


def test_the_newest_complete_checkpoint_of_the_job_is_copied(inherit, tmp_path):
    leave(tmp_path / "ray" / "first", 1, 10)
    leave(tmp_path / "ray" / "second", 2, 30)
    leave(tmp_path / "ray" / "second", 3, 40, complete=False)  # it was being written
    leave(tmp_path / "ray" / "first", 4, 90, job="e" * 64)  # of the training before
    assert inherit() == ("second 30", 30)
    leave(tmp_path / "ray" / "mine", 5, 35)  # which Ray Train finds itself
    assert inherit() == ("second 30", 30)


def test_a_driver_that_was_killed_before_its_first_checkpoint_leaves_those_of_the_one_before(inherit, tmp_path):
    leave(tmp_path / "ray" / "first", 1, 10)
    assert inherit() == ("first 10", 10)
    Folder.at(tmp_path / "ray" / "mine").delete()
    ray = Folder.at(tmp_path / "ray")
    third = inherit_checkpoint(ray, ray / "third", JOB)
    assert third is not None
    assert third.read_bytes(STATE) == b"first 10"


def test_checkpoints_of_the_version_before_are_found(inherit, tmp_path):
    leave(tmp_path / "ray", 1, 20, job=f"/old/place/of/the/run/stage2 {JOB}")
    assert inherit() == ("ray 20", 20)


def test_a_checkpoint_that_is_deleted_while_it_is_copied_gives_way_to_the_one_before(inherit, tmp_path, monkeypatch):
    leave(tmp_path / "ray" / "first", 1, 10)
    newest = leave(tmp_path / "ray" / "first", 2, 20)

    def copy(source: Folder, target: Folder, name: str) -> None:
        if source.name == newest.name and name == POSITION:
            raise FileNotFoundError(name)
        copy_file(source, target, name)

    monkeypatch.setattr(checkpoints, "copy_file", copy)
    assert inherit() == ("first 10", 10)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"job": "", "iteration": 1}', '{"job": "x", "iteration": "many"}'])
def test_a_checkpoint_whose_position_is_damaged_is_left_out(inherit, tmp_path, text):
    leave(tmp_path / "ray" / "first", 1, 10)
    (leave(tmp_path / "ray" / "first", 2, 20) / POSITION).write_text(text)
    assert inherit() == ("first 10", 10)
