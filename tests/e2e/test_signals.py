"""Ctrl-C and SIGTERM at different moments of commands: one line, the exit code, and no process left."""

import os
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 600
MARK = "KPLM_TEST_MARK"
LINES = {
    signal.SIGINT: "kplm: interrupted; the same command continues",
    signal.SIGTERM: "kplm: terminated; the same command continues",
}


def maps(process: psutil.Process) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process.pid}/maps").read_text()
    return ""


def child(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.Error):
        return any(name in c.name() for c in process.children())
    return False


@pytest.fixture(scope="module")
def moments(small, folder):
    """Moment -> the command, and whether it has come."""
    (folder / "stops").mkdir()
    images, dataset, run = folder / "images", folder / "dataset", folder / "stops" / "run"
    train = ["train", folder / "empty.yaml", f"dataset={dataset}", f"run={run}", *small, "stage2.iterations=4000"]
    ingest = ["ingest", images, folder / "stops" / "new", "--part-images", 1]
    return {
        "importing": (train, lambda process: "libtorch" in maps(process)),
        "starting Ray": (train, lambda process: child(process, "gcs_server")),
        "ingesting": (ingest, lambda _: any((folder / "stops" / "new").glob("train/images/*.parquet"))),
        "training": (train, lambda _: (run / "ray").exists()),
        "in stage 2": (train, lambda _: (run / "stage2" / "claim.json").exists()),
    }


def marked(mark: str) -> list[psutil.Process]:
    """All processes that inherited the mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop_at(kplm, monkeypatch, arguments, has_come, number) -> str:
    """Start the command, send it the signal when the moment has come, and return its standard error."""
    monkeypatch.setenv(MARK, mark := uuid.uuid4().hex)
    process = kplm(*arguments, start_new_session=True)
    seen = psutil.Process(process.pid)
    deadline = time.monotonic() + DEADLINE_S
    while not has_come(seen):
        assert process.poll() is None, process.stderr.read()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    print(f"ended after {time.monotonic() - sent:.1f} s")
    assert process.returncode == 128 + number, err[-2000:]
    _, alive = psutil.wait_procs(marked(mark), timeout=10)
    assert not alive
    assert os.environ[MARK] == mark
    return err


QUIET = [pytest.param(moment, marks=pytest.mark.quiet) for moment in ("training", "in stage 2")]


@pytest.mark.parametrize("moment", ["importing", "starting Ray", "ingesting", *QUIET])
def test_an_interruption_ends_a_command(kplm, monkeypatch, moments, moment):
    arguments, has_come = moments[moment]
    err = stop_at(kplm, monkeypatch, arguments, has_come, signal.SIGINT)
    print(moment, err)
    last = err.splitlines()[-1]
    assert last == LINES[signal.SIGINT]
    assert "Traceback" not in err
    for noise in ("Error", "Exception", "Aborted", "SIGTERM", "core dumped"):
        assert noise not in err, err


@pytest.mark.quiet
def test_a_termination_ends_a_command(kplm, monkeypatch, moments):
    arguments, has_come = moments["in stage 2"]
    assert stop_at(kplm, monkeypatch, arguments, has_come, signal.SIGTERM).splitlines()[-1] == LINES[signal.SIGTERM]


@pytest.mark.quiet
def test_a_prediction_is_interrupted_and_continued(kplm, finish, monkeypatch, small, folder):
    run, out = folder / "stops" / "predictor", folder / "stops" / "landmarks"
    finish("train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *small, "stage1.rounds=0")
    arguments = ["predict", run, folder / "dataset", out]
    err = stop_at(kplm, monkeypatch, arguments, lambda _: (out / "claim.json").exists(), signal.SIGINT)
    assert err.splitlines()[-1] == LINES[signal.SIGINT]
    finish(*arguments)
    assert (out / "manifest.json").exists()
