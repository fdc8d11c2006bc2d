"""`ray job submit --working-dir . -- python jobs/train.py ...` to a real local cluster, as the README says."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).parent / "ray"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster():
    """Address of the job server of a head node of four logical CPUs, and the environment to reach it."""
    dashboard = free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    environment["PATH"] = f"{RAY.parent}{os.pathsep}{environment['PATH']}"  # a job's `python` is this one
    environment.pop("RAY_ADDRESS", None)
    # A job is sent to the Ray that its temporary folder names last: another test's, were this the usual one. Paths of sockets
    # in it have to be short.
    temporary = tempfile.mkdtemp(prefix="ray-")
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={temporary}", f"--port={free_port()}",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}",
         "--disable-usage-stats"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        asked = subprocess.run([RAY, "job", "list"], env=environment, capture_output=True, text=True)
        if asked.returncode == 0:
            break
        assert head.poll() is None, "ray start ended"
        time.sleep(1)
    else:
        raise AssertionError(f"no job server within 90 s: {asked.stderr[-500:]}")
    yield environment
    for process in psutil.Process(head.pid).children(recursive=True):  # asked politely, it takes half a minute
        process.kill()
    head.kill()
    head.wait(timeout=60)
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.skipif(not RAY.exists(), reason=f"no {RAY}: the ray command is not beside this Python")
def test_a_submitted_job_trains_and_says_how_it_ended(cluster, small, folder, tmp_path):
    # What a user submits is the checkout; its environments and history are no part of it.
    shutil.copytree(ROOT / "ray_kplm", tmp_path / "checkout" / "ray_kplm")
    shutil.copytree(ROOT / "jobs", tmp_path / "checkout" / "jobs", symlinks=True)  # configs is a link

    def submit(script, *arguments):
        command = [RAY, "job", "submit", "--working-dir", tmp_path / "checkout", "--", "python", f"jobs/{script}.py"]
        deadline = time.monotonic() + 90
        while True:
            done = subprocess.run(
                [*command, *map(str, arguments)], env=cluster, capture_output=True, text=True, timeout=300
            )
            if (
                "No available agent" not in done.stderr or time.monotonic() > deadline
            ):  # the job server starts before it
                return done
            time.sleep(1)

    quick = [*small, "stage1.rounds=0", "stage1.warmup_iterations=20", "stage2.iterations=20"]
    run = folder / "job"
    done = submit("train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *quick)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (run / "stage2" / "network.pt").exists()
    log = done.stdout
    assert "[100%] stage 2" in log
    assert "done in" in log
    assert "kplm evaluate" in log
    assert_plain(log)

    done = submit("predict", run, folder / "dataset", folder / "found", "--split", "test", "--part-images", 8, "--coco")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "[100%] 1/1 parts" in done.stdout
    assert f"{folder / 'found'}: " in done.stdout
    assert (folder / "found" / "coco.json").exists()
    assert_plain(done.stdout)

    for config in ("jobs/configs/demo.yaml", "demo"):
        failed = submit("train", config, "dataset=/nowhere", f"run={folder / 'other'}")
        assert failed.returncode != 0
        assert "/nowhere is no finished dataset" in failed.stdout + failed.stderr


def assert_plain(log):
    """No terminal control codes where there is no terminal, in what the script said."""
    said = log.split("jobs/", 1)[-1]
    assert "\r" not in said
    assert "\x1b[K" not in said
