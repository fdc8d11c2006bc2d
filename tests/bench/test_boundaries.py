"""The boundaries of `kplm bench chaos`: which there are, and how a process dies at one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ray_kplm.bench.boundaries import DRIVER, WORKER, Boundary, BoundaryFence, Plan, read_log, write_plan
from ray_kplm.bench.boundary_faults import is_leftover, lines, spread
from ray_kplm.locking import lock_folder
from ray_kplm.storage import Folder

PROGRAM = r"""
import multiprocessing, pickle, runpy, sys
from ray_kplm.locking import lock as run_lock
from ray_kplm.bench import boundaries
from ray_kplm.locking import lock_folder
from ray_kplm.storage import Folder

def work(folder):
    pickle.loads(folder).write_bytes("part-0", b"1")

def kplm(arguments):
    with lock_folder(Folder.at(arguments[0])) as lock:
        step = lock.folder / "step"
        step.write_json("claim.json", {})
        worker = multiprocessing.get_context("fork").Process(target=work, args=[pickle.dumps(step)])
        worker.start()
        worker.join()
        for name in "abcd":
            (step / "old").write_bytes(name, b"1")
        (step / "old").delete()
        for number in (1, 2):
            (lock.folder / "tracking").write_bytes(f"1700000000000000000{number}.jsonl", b"")
        step.write_json("manifest.json", {})
        step.write_json("manifest.json", {})
    return 0

runpy.run_module = lambda *arguments, **options: sys.exit(kplm(sys.argv[1:]))
boundaries.main(sys.argv[1:])
"""
BOUNDARIES = [
    Boundary(DRIVER, "publish", "step/claim.json"),
    Boundary(WORKER, "publish", "step/part-0"),
    *(Boundary(DRIVER, "publish", f"step/old/{name}") for name in "abcd"),
    Boundary(DRIVER, "delete", "step/old"),
    Boundary(DRIVER, "publish", "tracking/*.jsonl"),
    Boundary(DRIVER, "publish", "step/manifest.json"),
    Boundary(DRIVER, "publish", "step/manifest.json", 2),
]


@pytest.fixture
def drive(tmp_path):
    """Run the program with a target; return its exit code, the boundaries that it came to, and the folder."""

    def run(target: Boundary | None, worker_targets: tuple[Boundary, ...] = ()) -> tuple[int, list[Boundary], Path]:
        write_plan(tmp_path / "plan", tmp_path / "log", target, worker_targets)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "plan"), str(tmp_path / "run")],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, read_log(tmp_path / "log"), tmp_path / "run"

    return run


def test_all_boundaries_of_driver_and_workers_are_noted_in_their_order(drive):
    assert drive(None)[:2] == (0, BOUNDARIES)


@pytest.mark.parametrize("number", range(len(BOUNDARIES)))
def test_a_driver_dies_before_the_change_is_made(drive, number):
    code, came_to, run = drive(BOUNDARIES[number])
    assert code == -signal.SIGKILL
    assert came_to == BOUNDARIES[: number + 1]
    boundary = BOUNDARIES[number]
    if boundary.change == "publish" and "*" not in boundary.path:
        assert (run / boundary.path).exists() == (boundary.occurrence > 1)
        assert list((run / boundary.path).parent.glob("*.partial")), "what is written is there, under another name"
    if boundary.change == "delete":
        assert len(list((run / boundary.path).iterdir())) == 2, "half of it is deleted"


def test_a_worker_alone_dies_once(drive):
    target = (BOUNDARIES[1],)
    code, _, run = drive(None, target)
    assert code == 0
    assert not (run / "step" / "part-0").exists()
    code, _, run = drive(None, target)
    assert (run / "step" / "part-0").exists()


def test_a_fence_of_a_driver_that_was_replaced_refuses_before_it_kills(tmp_path):
    with lock_folder(Folder.at(tmp_path)) as lock:
        real = lock.folder.guard
        fence = BoundaryFence(real.folder, ".driver-none.json", real.token, Plan(str(tmp_path / "log"), os.getpid()))
        with pytest.raises(Exception, match="was removed"):
            fence.check("publish", f"{tmp_path}/x")
    assert read_log(tmp_path / "log") == []


def test_a_sample_is_evenly_spread():
    assert spread(BOUNDARIES, None) == spread(BOUNDARIES, 99) == BOUNDARIES
    assert spread(BOUNDARIES, 1) == [BOUNDARIES[5]]
    assert spread(BOUNDARIES, 2) == [BOUNDARIES[2], BOUNDARIES[7]]
    assert len(set(spread(BOUNDARIES, 7))) == 7


def test_what_a_finished_run_does_not_need():
    left = ["run/stage2/claim.json", "run/ray", "run/.driver-1.json"]
    assert [is_leftover(Path(path)) for path in [*left, "run/stage2/manifest.json", "run/stage2"]] == [1, 1, 1, 0, 0]


def test_the_lines_name_what_is_wrong():
    fine = {"killed": ["a"] * 3, "missed": [], "problems": [], "boundaries": 3, "seconds": 60.0, "calm_seconds": 20.0}
    assert lines(fine) == ["same bits", "3 kills at 3 boundaries in 60 s; the undisturbed run takes 20 s"]
    bad = {**fine, "missed": ["publish x"], "problems": ["relay: differs in stage2/network.pt"]}
    assert lines(bad)[:2] == ["not come to again: publish x", "relay: differs in stage2/network.pt"]
