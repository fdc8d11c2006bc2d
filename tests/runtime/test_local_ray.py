"""The start of a local Ray: it is waited for as long as its processes live."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_kplm.runtime import local_ray
from ray_kplm.runtime.local_ray import _Died, _patience, _until, _WatchfulTime
from ray_kplm.runtime.ray_private import node, services

START = """
import signal, sys, threading, time
import psutil
from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ClusterError
from ray_kplm.runtime.session import session

name, number, pause_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

def strike():
    while True:
        for child in psutil.Process().children():
            if child.name() == name:
                child.send_signal(number)
                time.sleep(pause_s)
                return pause_s and child.send_signal(signal.SIGCONT)
        time.sleep(0.01)

threading.Thread(target=strike, daemon=True).start()
try:
    with session(ComputeConfig()):
        print("started")
except ClusterError as error:
    print(error)
print("left", [child.name() for child in psutil.Process().children(recursive=True) if child.status() != "zombie"])
"""


@pytest.fixture
def processes(tmp_path):
    """Start a process of this name, a child of this one."""
    started = []

    def start(name: str, *arguments: str) -> subprocess.Popen:
        program = tmp_path / name
        shutil.copy(shutil.which(arguments[0] if arguments else "sleep"), program)
        started.append(subprocess.Popen([program, *(arguments[1:] or ("1000",))]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for_end(process: subprocess.Popen) -> None:
    """Wait without taking the exit status, as Ray does not."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def not_ready():
    raise RuntimeError("not yet")


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_process_that_died_is_named_at_once(processes, name):
    process = processes(name)
    process.send_signal(signal.SIGKILL)
    wait_for_end(process)
    with pytest.raises(_Died, match=f"its process {name} was killed by SIGKILL"):
        _until(time.monotonic() + 1000, not_ready)
    with pytest.raises(_Died):
        _WatchfulTime().sleep(1000)


def test_an_exit_code_is_named(processes):
    wait_for_end(processes("raylet", "false", "x"))
    with pytest.raises(_Died, match="its process raylet ended with exit code 1"):
        _until(time.monotonic() + 1000, not_ready)


def test_processes_that_live_are_waited_for(processes, monkeypatch):
    monkeypatch.setattr(local_ray, "_POLL_S", 0.01)
    processes("raylet")
    wait_for_end(processes("other", "true", "x"))  # any other child may end
    answers = iter([RuntimeError(), RuntimeError(), "ready"])

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert _until(time.monotonic() + 1000, ask) == "ready"
    with pytest.raises(_Died, match="its processes live, and did not answer within 240 s"):
        _until(time.monotonic() - 1, not_ready)


def test_ray_has_its_own_functions_afterwards():
    before = node.wait_for_persisted_port, services.get_node, node.time
    with _patience(0):
        assert node.wait_for_persisted_port is not before[0]
        assert node.time.monotonic() > 0
    assert (node.wait_for_persisted_port, services.get_node, node.time) == before


def test_the_log_names_the_last_error(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert local_ray._log() == "no log was written"
    logs = tmp_path / "ray" / f"session_2026_{os.getpid()}" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.err").write_text("[x I 1 2] all is well\n")
    assert local_ray._log() == f"logs: {logs}"
    (logs / "raylet.out").write_text("[x E 1 2] cannot   bind\n[x I 1 2] bye\n")
    assert local_ray._log() == f"log: {logs / 'raylet.out'}: [x E 1 2] cannot bind"


def started(name: str, number: int, pause_s: float) -> list[str]:
    arguments = [sys.executable, "-c", START, name, str(int(number)), str(pause_s)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=400, env=environment)
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.quiet
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_whose_process_is_killed_at_the_start_is_one_line(name):
    line, left = started(name, signal.SIGKILL, 0)
    assert line.startswith("the local Ray did not start: ")
    assert left == "left []"


@pytest.mark.slow
@pytest.mark.quiet
def test_a_ray_that_is_slower_than_ray_itself_waits_starts():
    assert started("raylet", signal.SIGSTOP, 40) == ["started", "left []"]
