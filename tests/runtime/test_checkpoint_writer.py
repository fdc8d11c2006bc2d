"""Checkpoints that are written while the training goes on. What stands for Ray Train keeps what is reported to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ray_kplm.runtime import checkpoint_writer
from ray_kplm.runtime.checkpoint_writer import CheckpointWriter
from ray_kplm.runtime.checkpoints import read_checkpoint
from ray_kplm.storage import Folder

TIMEOUT_S = 60
"""After which a test fails instead of waiting for ever."""


class Training:
    """A state that changes in each step, and storage that can be slow: until `go` is set, no report returns."""

    def __init__(self) -> None:
        self.value, self.go, self.reporting = 0, threading.Event(), threading.Semaphore(0)
        self.reports: list[tuple[dict[str, Any], bytes | None]] = []
        self.frozen: list[int] = []
        self.error: Exception | None = None
        self.folders: list[str] = []

    def freeze(self) -> Callable[[], bytes]:
        self.frozen.append(self.value)
        text = str(self.value).encode()
        return lambda: text

    def report(self, metrics: dict[str, Any], checkpoint: Any = None) -> None:
        state = None
        if checkpoint is not None:
            found = read_checkpoint(Folder.at(checkpoint.path), "f", "step")
            assert found is not None
            assert found.iteration == metrics["iteration"]
            state = found.state
            self.folders.append(checkpoint.path)
        self.reporting.release()
        assert self.go.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        self.reports.append((metrics, state))

    def train(self, iterations: int) -> None:
        self.value += iterations


@pytest.fixture
def training(monkeypatch):
    made = Training()
    monkeypatch.setattr(checkpoint_writer.ray.train, "report", made.report)
    return made


def test_the_training_goes_on_while_a_checkpoint_of_its_time_is_written(training):
    writer = CheckpointWriter("f", 0)
    training.train(5)
    writer.write(training.freeze, 5, {"loss": 2.0})
    assert training.reporting.acquire(timeout=TIMEOUT_S)  # the report is being made, and does not return
    training.train(3)
    writer.check()
    assert training.reports == []
    training.go.set()
    writer.wait()
    assert training.reports == [({"loss": 2.0, "iteration": 5}, b"5")]
    assert not any(map(os.path.exists, training.folders)), "a temporary folder was left"


def test_the_next_checkpoint_waits_for_the_one_before_and_then_copies_the_state(training):
    writer = CheckpointWriter("f", 0)
    writer.write(training.freeze, 0, {})
    assert training.reporting.acquire(timeout=TIMEOUT_S)
    second = threading.Thread(target=writer.write, args=(training.freeze, 7, {}))
    second.start()
    training.train(7)
    assert training.frozen == [0], "the second one did not wait"
    training.go.set()
    second.join(TIMEOUT_S)
    writer.wait()
    assert training.frozen == [0, 7]
    assert [state for _, state in training.reports] == [b"0", b"7"]


@pytest.mark.parametrize("call", ["check", "wait", "write"])
def test_an_error_of_a_checkpoint_reaches_the_training(training, call):
    writer = CheckpointWriter("f", 0)
    training.error = OSError("No space left on device")
    training.go.set()
    writer.write(training.freeze, 5, {})
    calls = {"check": writer.check, "wait": writer.wait, "write": lambda: writer.write(training.freeze, 6, {})}
    if call == "check":  # it does not wait itself
        with pytest.raises(OSError, match="No space"):
            writer.wait()
    with pytest.raises(OSError, match="No space"):
        calls[call]()
    assert len(training.frozen) == 1
    assert not any(map(os.path.exists, training.folders)), "a temporary folder was left"


def test_an_error_while_the_state_is_made_reaches_the_training(training):
    def freeze() -> Callable[[], bytes]:
        def state() -> bytes:
            raise MemoryError

        return state

    writer = CheckpointWriter("f", 0)
    writer.write(freeze, 5, {})
    with pytest.raises(MemoryError):
        writer.wait()
    assert training.reports == []


def test_other_ranks_report_without_a_copy_of_the_state(training):
    writer = CheckpointWriter("f", 1)
    training.go.set()
    writer.write(training.freeze, 5, {"loss": 1.0})
    writer.wait()
    assert training.frozen == []
    assert training.reports == [({"loss": 1.0, "iteration": 5}, None)]


def test_a_writer_without_a_checkpoint_waits_for_nothing(training):
    writer = CheckpointWriter("f", 0)
    writer.check()
    writer.wait()
    assert training.reports == []
