"""The thread that sends the queue to MLflow, with an MLflow run that only records what it gets."""

import threading
from dataclasses import replace

import pytest

from ray_kplm.errors import RunError
from ray_kplm.storage import Folder
from ray_kplm.tracking import sender as module
from ray_kplm.tracking.sender import Sender
from ray_kplm.tracking.spool import Point, Spool


class FakeRun:
    """An MLflow run. `hang_at`: the name of an artifact whose request does not return until `release` is set."""

    uri, began = "http://server", None

    def __init__(self, hang_at: str = "") -> None:
        self._hang_at = hang_at
        self.hanging, self.release = threading.Event(), threading.Event()
        self.got: list[object] = []

    def connect(self) -> None:
        pass

    def disconnect(self) -> None:
        pass

    def log_metrics(self, points: list[Point]) -> None:
        self.got += [point.name for point in points]

    def log_file(self, path: str, content: bytes) -> None:
        if path == self._hang_at:
            self.hanging.set()
            assert self.release.wait(60)
        self.got.append(path)

    def log_model(self, exported: Folder, save_facts) -> None:
        self.got.append("model")

    def set_terminated(self, status: str, time: int) -> None:
        self.got.append(status)


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(Folder.at(tmp_path / "tracking"))


class Lost:
    """The guard of a run directory that another driver took over."""

    token = "mine"

    def check(self, change: str = "", path: str = "") -> None:
        raise RunError("taken over by another driver")


def test_a_driver_that_lost_the_run_directory_sends_nothing_and_leaves_the_queue(spool, tmp_path):
    spool.add([Point("loss", 1.0, 10, 1_000)])
    spool.put_file("config.yaml", b"seed: 7")
    run, lines = FakeRun(), []
    sender = Sender(run, Spool(replace(Folder.at(tmp_path / "tracking"), guard=Lost())), lines.append)
    assert not sender.send()
    assert run.got == lines == []
    assert spool.files() == ["config.yaml"]
    assert len(spool.segments()) == 1


def test_everything_is_sent_in_order_and_removed(spool):
    run = FakeRun()
    sender = Sender(run, spool, print)
    sender.put([Point("loss", 1.0, 10, 1_000)])
    sender.put_file("config.yaml", b"seed: 7")
    sender.put_model(lambda folder: folder.write_json("model.json", {}))
    assert sender.close("FINISHED", fast=False)
    assert run.got == ["loss", "config.yaml", "model", "FINISHED"]
    assert spool.is_empty()


@pytest.mark.parametrize("hang_at", ["a", "b"])
def test_an_abandoned_sender_leaves_the_queue_to_the_next_one(spool, tmp_path, hang_at, monkeypatch):
    """Its request may return while the next one, in the same process, sends and removes the same files."""
    monkeypatch.setattr(module, "_STOP_TIMEOUT_S", 0.05)
    lines: list[str] = []
    hung, run = FakeRun(hang_at), FakeRun()
    first = Sender(hung, spool, lines.append)
    for name in ("a", "b", "c"):
        first.put_file(name, b"content")
    assert not first.close("KILLED", fast=True)
    assert hung.hanging.is_set()
    (last,) = [thread for thread in threading.enumerate() if thread.name == "kplm-tracking-end"]

    second = Sender(run, Spool(Folder.at(tmp_path / "tracking")), lines.append)
    listed = second.spool.files()
    hung.release.set()
    last.join(60)
    assert second.spool.files() == listed  # the first one removed nothing
    assert second.send()
    assert run.got == [*listed, "KILLED"]
    assert not second.spool.files()
    assert lines == []


def test_an_abandoned_sender_does_not_read_files_that_the_next_one_removed(spool, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STOP_TIMEOUT_S", 0.05)
    lines: list[str] = []
    hung, run = FakeRun("a"), FakeRun()
    first = Sender(hung, spool, lines.append)
    for name in ("a", "b"):
        first.put_file(name, b"content")
    first.close("KILLED", fast=True)
    (last,) = [thread for thread in threading.enumerate() if thread.name == "kplm-tracking-end"]
    second = Sender(run, Spool(Folder.at(tmp_path / "tracking")), lines.append)
    assert second.send()
    second.spool.clear()
    hung.release.set()
    last.join(60)
    assert hung.got == ["a"]
    assert lines == []
    assert not (tmp_path / "tracking").exists()


def test_a_file_that_another_process_sent_is_left_out(spool, tmp_path):
    """It is removed between the listing and the reading."""
    run = FakeRun()
    sender = Sender(run, spool, print)
    for name in ("a", "b"):
        sender.put_file(name, b"content")
    received = run.log_file

    def log_file(path: str, content: bytes) -> None:
        received(path, content)
        Spool(Folder.at(tmp_path / "tracking")).remove_file("b")

    run.log_file = log_file
    assert sender.send()
    assert run.got == ["a"]
