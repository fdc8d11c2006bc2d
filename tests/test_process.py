"""`kplm` as a process: Ctrl-C, SIGTERM and failures end it with one line and without children, whatever it is doing."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
DEADLINE_S = 60
LINES = {
    signal.SIGINT: "kplm: interrupted; the same command continues\n",
    signal.SIGTERM: "kplm: terminated; the same command continues\n",
}
PREPARE = """
    import atexit, hashlib, os, signal, subprocess, sys, threading, time
    from ray_kplm.cli import main as cli, process
    from ray_kplm.errors import DataError

    process.GRACE_S = 1.0
    def ready():
        os.write(1, b"ready\\n")  # a command's own prints go to stderr
        return True
"""
WORK = {
    "waits": "ready() and time.sleep(1000)",
    "is in a library that does not return": "ready() and hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)",
    "fails while it cleans up": """
        try:
            ready() and time.sleep(1000)
        finally:
            raise DataError("a consequence")
    """,
    "does not end to clean up": """
        try:
            ready() and time.sleep(1000)
        finally:
            time.sleep(1000)
    """,
    "has children that ignore signals": """
        script = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; print(flush=True); time.sleep(999)"
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        child.stdout.readline()
        ready() and time.sleep(1000)
    """,
    "swallows the interruption": """
        ready()
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
    """,
    "writes nowhere": """
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        ready() and time.sleep(1000)
    """,
}
"""What a command does when the signal comes."""


def start(work: str, ending: str = "") -> subprocess.Popen:
    """Start a process that does the work as `kplm configs`, and return it."""
    body = textwrap.indent(textwrap.dedent(work).strip(), "    ")
    code = f"{textwrap.dedent(PREPARE)}\ndef work(options):\n{body}\n{ending}\ncli._configs = work\n"
    code += "process.run_as_process(lambda: cli.main(['configs']))"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("doing", WORK)
def test_a_signal_ends_a_command_with_one_line(doing, number):
    process = start(WORK[doing])
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=DEADLINE_S)[1]
    children = psutil.Process(process.pid).children(recursive=True)
    assert bool(children) == ("children" in doing)
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (128 + number, LINES[number])
    _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert not alive


def test_a_second_signal_ends_it_at_once():
    process = start(WORK["does not end to clean up"], ending="process.GRACE_S = 10000.0")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (130, LINES[signal.SIGINT])


def test_a_failed_command_does_not_wait_for_what_libraries_do_at_the_exit():
    process = start("atexit.register(time.sleep, 1000)\nraise DataError('the value, the rule, the way out')")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (3, "kplm: the value, the rule, the way out\n")


def test_a_failed_command_does_not_wait_for_threads():
    process = start("threading.Thread(target=time.sleep, args=(1000,)).start()\nraise DataError('a line')")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (3, "kplm: a line\n")


def test_a_successful_command_finishes_what_libraries_do_at_the_exit():
    process = start("atexit.register(print, 'sent')\nreturn cli.Result('done')")
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, err) == (0, "done\nsent\n", "")


def test_an_unexpected_error_keeps_its_traceback():
    process = start("raise RuntimeError('a bug')")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "RuntimeError: a bug"


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_the_scripts_of_jobs_do_so_too(script):
    ended = subprocess.run(
        [sys.executable, ROOT / "jobs" / script, "--nothing"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
