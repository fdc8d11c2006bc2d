"""`ray job submit --working-dir . -- python jobs/train.py ...` to a local cluster, as the README shows."""

import os
import re
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
pytestmark = pytest.mark.skipif(not RAY.exists(), reason=f"no {RAY}: the ray command is not beside this Python")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster():
    """A head node of four logical CPUs; the environment variables that reach its job server."""
    dashboard = free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    environment["PATH"] = f"{RAY.parent}{os.pathsep}{environment['PATH']}"  # a job's `python` is this one
    environment.pop("RAY_ADDRESS", None)
    # `ray job submit` finds a Ray through its temporary folder; in the default one it may find that of another process. The
    # path is short because sockets are made in it.
    temporary = tempfile.mkdtemp(prefix="ray-")
    head = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={temporary}", f"--port={free_port()}",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}",
         "--disable-usage-stats"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        answer = subprocess.run([RAY, "job", "list"], env=environment, capture_output=True, text=True)
        if answer.returncode == 0:
            break
        assert head.poll() is None, "ray start ended"
        time.sleep(1)
    else:
        raise AssertionError(f"no job server within 90 s: {answer.stderr[-500:]}")
    yield environment
    for process in psutil.Process(head.pid).children(recursive=True):  # `ray stop` takes half a minute
        process.kill()
    head.kill()
    head.wait(timeout=60)
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def submit(cluster, tmp_path_factory):
    """Submit a script of jobs/ with arguments; return the ended `ray job submit`."""
    # A user submits a checkout; its environments and history are left out.
    checkout = tmp_path_factory.mktemp("job") / "checkout"
    shutil.copytree(ROOT / "ray_kplm", checkout / "ray_kplm")
    shutil.copytree(ROOT / "jobs", checkout / "jobs", symlinks=True)  # configs is a link

    def run(script, *arguments):
        command = [RAY, "job", "submit", "--working-dir", checkout, "--", "python", f"jobs/{script}.py"]
        command += map(str, arguments)
        deadline = time.monotonic() + 90
        while True:
            done = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=600)
            # The job server answers before there is an agent to start jobs.
            if "No available agent" not in done.stderr or time.monotonic() > deadline:
                return done
            time.sleep(1)

    return run


@pytest.fixture(scope="module")
def trained(submit, small, folder):
    """A run that a job trained, and the job."""
    quick = [*small, "stage1.rounds=0", "stage1.warmup_iterations=20", "stage2.iterations=20"]
    run = folder / "job"
    job = submit("train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *quick)
    assert job.returncode == 0, (job.stdout + job.stderr)[-3000:]
    return run, job


def test_a_job_trains_and_logs_progress_and_the_next_command(trained):
    run, job = trained
    assert (run / "stage2" / "network.pt").exists()
    for text in ("[100%] visibility of the landmarks", "done in", "kplm evaluate"):
        assert text in job.stdout
    assert_plain(job.stdout)


def test_a_job_predicts_and_exports(trained, submit, folder):
    run, _ = trained
    job = submit(
        "predict", run, folder / "dataset", folder / "landmarks", "--split", "test", "--part-images", 8, "--coco"
    )
    assert job.returncode == 0, (job.stdout + job.stderr)[-3000:]
    assert re.search(r"\[100%\] (\d+)/\1 parts", job.stdout), job.stdout[-2000:]
    assert f"{folder / 'landmarks'}: " in job.stdout
    assert (folder / "landmarks" / "coco.json").exists()
    assert_plain(job.stdout)


@pytest.mark.parametrize("config", ["jobs/configs/demo.yaml", "demo"])
def test_a_job_without_a_dataset_fails_with_the_reason(submit, folder, config):
    job = submit("train", config, "dataset=/nowhere", f"run={folder / 'other'}")
    assert job.returncode != 0
    assert "/nowhere is no finished dataset" in job.stdout + job.stderr


def assert_plain(log):
    """The script's part of a log that is no terminal has no control codes."""
    output = log.split("jobs/", 1)[-1]
    assert "\r" not in output
    assert "\x1b[K" not in output
