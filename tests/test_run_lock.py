"""The lock of a folder: which driver is refused, which takes over, and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_kplm import run_lock
from ray_kplm.errors import RunError, StorageError
from ray_kplm.run_lock import lock_folder
from ray_kplm.storage import Folder

HOLD = r"""
import sys, time
from ray_kplm.run_lock import lock_folder
from ray_kplm.storage import Folder
with lock_folder(Folder.at(sys.argv[1]), beat_s=0.05) as lock:
    print("held", flush=True)
    while sys.stdin.readline() == "until it is lost\n":
        while True:
            lock.check()
            time.sleep(0.02)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts processes that hold a folder until a line is written to them."""
    started = []

    def start() -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "held\n", process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def claims(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob(".driver-*.json")]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def elsewhere(folder: Path) -> None:
    """The one claim as it looks from another machine: its process cannot be looked up."""
    for path in folder.glob(".driver-*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another"}))


def test_a_second_driver_is_refused_in_one_line_that_says_who_holds_it(tmp_path, holder):
    first = holder()
    with pytest.raises(RunError) as caught, lock_folder(Folder.at(tmp_path)):
        pass
    (claim,) = claims(tmp_path)
    for words in (str(tmp_path), claim["host"], str(first.pid), claim["since"], "takes over"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(claims(tmp_path)) == 1  # the refused one leaves nothing behind
    first.communicate("\n")
    assert first.returncode == 0
    assert claims(tmp_path) == []
    with lock_folder(Folder.at(tmp_path)):
        assert len(claims(tmp_path)) == 1
    assert claims(tmp_path) == []


def test_the_lock_is_released_when_the_block_fails(tmp_path):
    with pytest.raises(KeyError), lock_folder(Folder.at(tmp_path)):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_of_this_machine_is_replaced_at_once(tmp_path, holder):
    first = holder()
    first.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie: its number is still taken
    with lock_folder(Folder.at(tmp_path), patience_s=3600):
        (claim,) = claims(tmp_path)
        assert claim["pid"] == os.getpid()


def test_a_heartbeat_proves_that_a_holder_on_another_machine_is_alive(tmp_path, holder):
    holder()
    lines = []
    elsewhere(tmp_path)  # what the holder writes next says its own machine again: all that is left of it is its beat
    (path,) = tmp_path.glob(".driver-*.json")
    ahead = {**json.loads(path.read_text()), "machine": "another", "since": "2099-01-01 00:00:00 UTC"}
    assert run_lock._is_alive(Folder.at(tmp_path), ahead, 60, lines.append)  # its clock does not matter
    assert len(lines) == 1
    assert "waiting up to 60 s" in lines[0]


def test_a_holder_on_another_machine_without_a_heartbeat_is_replaced(tmp_path, holder):
    first = holder()
    first.send_signal(signal.SIGSTOP)
    elsewhere(tmp_path)
    lines = []
    with lock_folder(Folder.at(tmp_path), patience_s=0.3, log=lines.append):
        assert len(lines) == 1
        # It wakes up, finds that it was replaced, and stops at the next opportunity.
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate("until it is lost\n", timeout=60)
        assert first.returncode == 1
        assert "taken over by" in err
        (claim,) = claims(tmp_path)
        assert claim["pid"] == os.getpid()


def test_the_lock_is_lost_when_its_claim_is_removed(tmp_path):
    with lock_folder(Folder.at(tmp_path), beat_s=0.01) as mine:
        mine.check()
        for path in tmp_path.glob(".driver-*.json"):
            path.unlink()
        wait_for(lambda: mine.is_lost)
        with pytest.raises(RunError, match="was removed"):
            mine.check()
        assert claims(tmp_path) == []


def test_a_full_disk_does_not_end_the_heartbeat(tmp_path, monkeypatch):
    write, full = run_lock._write, []

    def fail(folder, claim):
        full.append(claim["beat"])
        raise StorageError("no space is left")

    with lock_folder(Folder.at(tmp_path), beat_s=0.01) as mine:
        monkeypatch.setattr(run_lock, "_write", fail)
        wait_for(lambda: len(full) > 1)
        monkeypatch.setattr(run_lock, "_write", write)
        wait_for(lambda: claims(tmp_path)[0]["beat"] > full[-1])
        mine.check()


def test_a_reused_process_number_is_not_the_holder(tmp_path):
    claim = run_lock._acquire(Folder.at(tmp_path), 1, print)
    Folder.at(tmp_path).write_json(f".driver-{claim['token']}.json", {**claim, "started": claim["started"] - 1000})
    with lock_folder(Folder.at(tmp_path), patience_s=0.2):
        (mine,) = claims(tmp_path)
        assert mine["replaces"] == [claim["token"]]


def test_one_of_many_simultaneous_drivers_gets_the_lock(tmp_path):
    inside, most, refused = [], [], []
    gate, done = threading.Barrier(8), threading.Barrier(8)

    def contend():
        gate.wait()
        try:
            with lock_folder(Folder.at(tmp_path)):
                inside.append(1)
                most.append(len(inside))
                done.wait()
        except RunError:
            refused.append(1)
            done.wait()

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(refused) == 7
    assert claims(tmp_path) == []
