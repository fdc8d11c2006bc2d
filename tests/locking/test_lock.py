"""The lock of a folder: which driver is refused, which takes over, and why."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_kplm.config import Config
from ray_kplm.errors import RunError, StorageError
from ray_kplm.locking import fence as driver_fence
from ray_kplm.locking import lock as run_lock
from ray_kplm.locking import takeover as driver_takeover
from ray_kplm.locking.claims import Claim, new_claim, read_claim
from ray_kplm.locking.exclusive_files import exclusive_files
from ray_kplm.locking.fence import Patrol
from ray_kplm.locking.lock import FolderLock, lock_folder
from ray_kplm.run import Run
from ray_kplm.storage import Folder

HOLD = r"""
import sys, time
from ray_kplm.errors import KplmError
from ray_kplm.locking.lock import lock_folder
from ray_kplm.storage import Folder
try:
    with lock_folder(Folder.at(sys.argv[1]), beat_s=0.05) as lock:
        print("held", flush=True)
        while sys.stdin.readline() == "sleep\n":
            time.sleep(3600)
except KplmError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def holder(tmp_path):
    """Starts processes that hold a folder until a line is written to them."""
    started = []

    def start() -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
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


def refusal(folder: Path, **options) -> str:
    """The one line that refuses the lock."""
    with pytest.raises(RunError) as caught, lock_folder(Folder.at(folder), **options):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    claim = Claim(path.name, b"another content", ahead)
    assert driver_takeover._is_alive(Folder.at(tmp_path), claim, 60, lines.append)  # its clock does not matter
    assert len(lines) == 1
    assert "waiting up to 60 s" in lines[0]


def test_a_holder_on_another_machine_without_a_heartbeat_is_replaced_and_ends_by_itself_when_it_wakes(tmp_path, holder):
    first = holder()
    first.stdin.write("sleep\n")
    first.stdin.flush()
    first.send_signal(signal.SIGSTOP)
    elsewhere(tmp_path)
    lines = []
    with lock_folder(Folder.at(tmp_path), patience_s=0.3, log=lines.append):
        assert len(lines) == 1
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=60)  # it sleeps for an hour, and is interrupted
        assert first.returncode == 1
        assert err.count("\n") == 1
        assert "taken over by" in err
        (claim,) = claims(tmp_path)
        assert claim["pid"] == os.getpid()


def test_a_holder_that_wakes_after_its_successor_has_ended_ends_too(tmp_path, holder):
    first = holder()
    first.stdin.write("sleep\n")
    first.stdin.flush()
    first.send_signal(signal.SIGSTOP)
    elsewhere(tmp_path)
    with lock_folder(Folder.at(tmp_path), patience_s=0.3, log=lambda line: None):
        pass
    with lock_folder(Folder.at(tmp_path)) as third:  # its claim has the name that the first one's had
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=60)
        assert (first.returncode, err.count("\n")) == (1, 1)
        third.check()
    assert claims(tmp_path) == []


def test_a_stopped_holder_of_this_machine_is_alive_and_the_refusal_says_how_to_go_on(tmp_path, holder):
    first = holder()
    first.send_signal(signal.SIGSTOP)
    wait_for(lambda: read_claim(Folder.at(tmp_path), ".driver-00000001.json").process_state() == "stopped")
    line = refusal(tmp_path, patience_s=0.1)
    assert re.search(f"is stopped .*kill -CONT {first.pid}.*kill -KILL {first.pid}", line)
    first.send_signal(signal.SIGCONT)
    first.communicate("\n")
    assert first.returncode == 0


def change_as(lock: FolderLock, change: str) -> None:
    """Publish or delete something in a copy of the folder as workers get it."""
    folder = pickle.loads(pickle.dumps(lock.folder)) / "step"
    match change:
        case "publish":
            folder.write_bytes("old", b"mine")
        case "delete a file":
            folder.delete_file("old")
        case "delete a folder":
            folder.parent.delete()
        case "finish a step":
            Run(lock.folder, Config()).step("step", "name", {}, {}).finish()


CHANGES = ["publish", "delete a file", "delete a folder", "finish a step"]


def take_over(folder: Path) -> str:
    """Take the lock over from this process, as a driver on another machine would, and leave; return its token."""
    elsewhere(folder)
    with lock_folder(Folder.at(folder), patience_s=0.05, log=lambda line: None) as lock:
        (lock.folder / "step").write_bytes("old", b"the successor's")
        return lock.folder.guard.token


@pytest.fixture
def asleep(tmp_path):
    """A lock whose heartbeat will not notice anything for an hour."""
    files = exclusive_files(Folder.at(tmp_path))
    lock = FolderLock(
        Folder.at(tmp_path), *driver_takeover.acquire(Folder.at(tmp_path), files, 1, print), files, 3600, 3600
    )
    yield lock
    lock.release()


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_while_the_lock_is_held_is_changed(tmp_path, asleep, change):
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "old").write_bytes(b"before")
    change_as(asleep, change)
    after = {path.name: path.read_bytes() for path in (tmp_path / "step").iterdir()} if tmp_path.exists() else {}
    assert after != {"old": b"before"}
    if change == "finish a step":
        assert json.loads(after["manifest.json"])["owner"] == asleep.folder.guard.token


@pytest.mark.parametrize("change", CHANGES)
def test_a_driver_that_was_replaced_changes_nothing(tmp_path, asleep, change):
    take_over(tmp_path)
    with pytest.raises(RunError, match="this driver stops") as caught:
        change_as(asleep, change)
    assert "\n" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in (tmp_path / "step").rglob("*")} == {"old": b"the successor's"}
    assert not asleep.is_lost  # it was the claim on storage that decided


def test_the_fence_names_the_successor_that_is_at_work(tmp_path, asleep):
    elsewhere(tmp_path)
    with (
        lock_folder(Folder.at(tmp_path), patience_s=0.05, log=lambda line: None),
        pytest.raises(RunError, match=f"taken over by host .*, process {os.getpid()}"),
    ):
        asleep.folder.write_bytes("x", b"")


def test_a_heartbeat_does_not_bring_back_a_claim_that_the_successor_removed(tmp_path, asleep):
    take_over(tmp_path)
    assert not exclusive_files(Folder.at(tmp_path)).rewrite(".driver-00000001.json", b"{}")
    assert "removed" in asleep._beat()
    assert claims(tmp_path) == []


def test_releasing_a_lock_that_was_lost_leaves_the_claim_of_another_driver(tmp_path, asleep):
    take_over(tmp_path)
    with lock_folder(Folder.at(tmp_path)) as third:
        asleep.release()
        third.check()


FOREIGN = {
    "empty": b"",
    "blank": b" \n",
    "torn": b'{"beat": 1, "held": tr',
    "a list": b"[]",
    "null": b"null",
    "another form": b'{"owner": "somebody", "expires": "2030-01-01"}',
    "of wrong types": json.dumps({**new_claim(1, []), "pid": "7", "beat": None}).encode(),
    "not text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_claim_that_cannot_be_read_is_waited_for_and_then_removed(tmp_path, content):
    (tmp_path / ".driver-x.json").write_bytes(content)
    lines = []
    with lock_folder(Folder.at(tmp_path), patience_s=0.2, log=lines.append):
        assert [path.name for path in tmp_path.iterdir()] == [".driver-00000001.json"]
    (line,) = lines
    assert "waiting up to" in line
    assert "remove .driver-x.json if nobody works there" in line


def test_a_claim_that_cannot_be_read_but_changes_is_a_driver(tmp_path):
    (tmp_path / ".driver-x.json").write_bytes(b"")
    stop = threading.Event()

    def beat():
        while not stop.wait(0.01):
            (tmp_path / ".driver-x.json").write_bytes(os.urandom(8).hex().encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        line = refusal(tmp_path, patience_s=30, log=lambda line: None)
    finally:
        stop.set()
        thread.join()
    assert "in use by a driver whose claim .driver-x.json" in line
    assert "remove .driver-x.json if there is none" in line
    assert [path.name for path in tmp_path.iterdir()] == [".driver-x.json"]


def test_a_waiting_driver_that_was_suspended_goes_on_waiting(tmp_path, monkeypatch):
    looks = []

    def read(folder, name):
        looks.append(name)
        return read_claim(folder, name)

    monkeypatch.setattr(driver_takeover, "read_claim", read)
    leaps = itertools.count(step=1000.0)  # it is suspended before each look
    monkeypatch.setattr(driver_takeover, "clock", lambda: next(leaps))
    Folder.at(tmp_path).write_bytes(".driver-x.json", b"")
    with lock_folder(Folder.at(tmp_path), patience_s=0.2, log=lambda line: None):
        assert len(looks) >= 5


def test_claims_of_the_version_before_still_count(tmp_path, holder):
    first = holder()
    (path,) = tmp_path.glob(".driver-*.json")
    old = {name: value for name, value in json.loads(path.read_text()).items() if name != "term"}
    first.communicate("\n")
    old_path = tmp_path / f".driver-{old['token']}.json"
    old_path.write_text(json.dumps({**old, "pid": os.getpid(), "started": new_claim(1, [])["started"]}))
    with pytest.raises(RunError, match="in use by host"), lock_folder(Folder.at(tmp_path)):
        pass
    old_path.write_text(json.dumps(old))  # its process has ended
    with lock_folder(Folder.at(tmp_path), patience_s=3600):
        (claim,) = claims(tmp_path)
        assert claim["replaces"] == [old["token"]]


def lose(folder: Path, damage: Callable[[FolderLock], object], **options) -> tuple[FolderLock, str]:
    """Hold a lock, damage it, and sleep until the loss interrupts this; return the line about it."""
    held = []
    try:
        with lock_folder(Folder.at(folder), **options) as lock:
            held.append(lock)
            damage(lock)
            wait_for(lambda: False)
    except RunError as error:
        return held[0], str(error)
    pytest.fail("it was not lost")


def remove_claim(folder: Path) -> None:
    for path in folder.glob(".driver-*.json"):
        path.unlink()


def test_the_lock_is_lost_when_its_claim_is_removed(tmp_path):
    mine, line = lose(tmp_path, lambda lock: remove_claim(tmp_path), beat_s=0.01)
    assert "was removed" in line
    assert "\n" not in line
    assert mine.is_lost
    with pytest.raises(RunError, match="was removed"):
        mine.check()
    assert claims(tmp_path) == []


def test_a_driver_that_does_not_end_is_interrupted_again(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_REPEAT_S", 0.05)
    swallowed = []

    def swallow(lock: FolderLock) -> None:
        remove_claim(tmp_path)
        while len(swallowed) < 3:
            try:
                wait_for(lambda: False)
            except run_lock.LeaseLost:
                swallowed.append(1)

    assert "was removed" in lose(tmp_path, swallow, beat_s=0.01)[1]


def fail(*arguments) -> bool:
    raise StorageError("no space is left")


def test_a_disk_that_is_full_for_a_while_does_not_end_the_heartbeat(tmp_path):
    with lock_folder(Folder.at(tmp_path), beat_s=0.01) as mine:
        rewrite, failed = mine._files.rewrite, []
        mine._files.rewrite = lambda *arguments: failed.append(1) or fail()
        wait_for(lambda: len(failed) > 3)
        beat = claims(tmp_path)[0]["beat"]
        mine._files.rewrite = rewrite
        wait_for(lambda: claims(tmp_path)[0]["beat"] > beat)
        mine.check()


def test_a_heartbeat_that_cannot_be_written_for_longer_than_the_patience_is_a_lost_lock(tmp_path):
    _, line = lose(tmp_path, lambda lock: setattr(lock._files, "rewrite", fail), beat_s=0.02, patience_s=0.2)
    assert "no heartbeat could be written for 0 s (no space is left)" in line
    assert claims(tmp_path) == []


def test_a_heartbeat_that_hangs_is_a_lost_lock(tmp_path):
    wakes = threading.Event()

    def hang(*arguments):
        wakes.wait()

    _, line = lose(tmp_path, lambda lock: setattr(lock._files, "rewrite", hang), beat_s=0.02, patience_s=0.2)
    assert "no heartbeat" in line
    wakes.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit, MemoryError("no memory")], ids=["ends", "fails"])
def test_a_heartbeat_whose_thread_ends_is_a_lost_lock(tmp_path, error):
    def end(*arguments):
        raise error

    _, line = lose(tmp_path, lambda lock: setattr(lock._files, "rewrite", end), beat_s=0.02)
    assert "heartbeat of this process" in line


def test_a_clock_that_leaps_is_a_suspension_after_which_the_claim_is_read_at_once(tmp_path, monkeypatch):
    leap = []
    monkeypatch.setattr(run_lock, "clock", lambda: time.monotonic() + 1000 * len(leap))

    def be_suspended(lock: FolderLock) -> None:
        remove_claim(tmp_path)
        leap.append(1)

    assert "was removed" in lose(tmp_path, be_suspended, beat_s=3600)[1]


def test_a_suspension_alone_does_not_lose_the_lock(tmp_path, monkeypatch):
    leap = []
    monkeypatch.setattr(run_lock, "clock", lambda: time.monotonic() + 1000 * len(leap))
    with lock_folder(Folder.at(tmp_path), beat_s=0.02) as mine:
        for _ in range(3):
            leap.append(1)
            beat = claims(tmp_path)[0]["beat"]
            wait_for(lambda beat=beat: claims(tmp_path)[0]["beat"] > beat + 1)
        mine.check()


def test_ctrl_c_is_still_ctrl_c(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught, lock_folder(Folder.at(tmp_path)):
        signal.raise_signal(signal.SIGINT)
    assert caught.type is KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_reused_process_number_is_not_the_holder(tmp_path):
    files = exclusive_files(Folder.at(tmp_path))
    name, claim = driver_takeover.acquire(Folder.at(tmp_path), files, 1, print)
    Folder.at(tmp_path).write_json(name, {**claim, "started": claim["started"] - 1000})
    with lock_folder(Folder.at(tmp_path), patience_s=0.2):
        (mine,) = claims(tmp_path)
        assert mine["replaces"] == [claim["token"]]
        assert mine["term"] == 2


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


@pytest.fixture
def quick_patrol(monkeypatch):
    monkeypatch.setattr(driver_fence, "_PATROL_S", 0.01)


def test_a_worker_finds_out_that_its_driver_was_replaced(tmp_path, asleep, quick_patrol):
    told = []
    with Patrol(asleep.folder.guard, on_loss=lambda: told.append(1)) as patrol:
        patrol.check()
        take_over(tmp_path)
        wait_for(lambda: told)
        with pytest.raises(RunError, match="this driver stops"):
            patrol.check()


def test_storage_that_does_not_answer_shows_a_worker_nothing(quick_patrol):
    class Unreachable:
        token, asked = "", 0

        def check(self, change: str = "", path: str = "") -> None:
            self.asked += 1
            fail()

    guard = Unreachable()
    with Patrol(guard) as patrol:
        wait_for(lambda: guard.asked > 3)
        patrol.check()


def test_a_worker_on_a_folder_that_nobody_locked_goes_on():
    with Patrol(None) as patrol:
        patrol.check()
