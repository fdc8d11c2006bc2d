"""A run through the command line whose driver is killed in every kind of step."""

import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ray_kplm.cli.main import main
from ray_kplm.methods.trainer import NETWORK, load_weights

DEADLINE_S = 600
MOMENTS = [
    ("rounds/000/train", "ray/*/checkpoint_*"),
    ("rounds/000/features", "rounds/000/features/claim.json"),
    ("rounds/000/labels", "rounds/000/labels/claim.json"),
    ("stage2", "ray/*/checkpoint_*"),
]
"""A step, and the pattern of a path in the run whose appearance during the step is the moment of the kill."""
STEPS = {
    "keypoints", "rounds/000/train", "rounds/000/labels", "rounds/001/train", "rounds/001/labels", "stage2", "visibility",
}  # fmt: skip


@dataclass
class Interrupted:
    """A run that was killed at `MOMENTS` and then ended."""

    folder: Path
    manifests: list[dict[str, int]]
    """Finished steps after each kill and at the end, with the time at which each was finished."""
    output: str
    """Standard output of the command that ended the run."""


def kill_when(kplm, run: Path, step: str, pattern: str, *arguments) -> None:
    """Run the command; send SIGKILL when a path of the pattern, made since the step began, is in the run."""
    process = kplm(*arguments, start_new_session=True)
    deadline = time.monotonic() + DEADLINE_S
    claim = run / step / "claim.json"
    while not (began := modified(claim)) or not any(modified(path) >= began for path in run.glob(pattern)):
        assert process.poll() is None, f"ended before {pattern}: {process.stderr.read()[-2000:]}"
        assert time.monotonic() < deadline, f"{pattern} did not appear within {DEADLINE_S} s"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def modified(path: Path) -> int:
    """Time of the last write, ns; 0 if there is no such file."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def manifests(run: Path) -> dict[str, int]:
    """Finished steps and the times at which they were finished; without features, which are deleted after their use."""
    found = {str(path.parent.relative_to(run)): path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    return {step: at for step, at in found.items() if not step.endswith("features")}


@pytest.fixture(scope="module")
def arguments(small, folder):
    """Of the command that trains to a run."""
    return lambda run: ["train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *small]


@pytest.fixture(scope="module")
def interrupted(kplm, finish, folder, arguments) -> Interrupted:
    run, history = folder / "interrupted", []
    for step, pattern in MOMENTS:
        kill_when(kplm, run, step, pattern, *arguments(run))
        history.append(manifests(run))
    out, _ = finish(*arguments(run))
    return Interrupted(run, [*history, manifests(run)], out)


def test_a_continued_run_repeats_no_finished_step(interrupted):
    for before, after in zip(interrupted.manifests, interrupted.manifests[1:], strict=False):
        assert before.items() <= after.items(), "a finished step ran again"


def test_a_continued_run_ends_with_all_steps_and_no_leftover_files(interrupted):
    assert "done in" in interrupted.output
    assert set(interrupted.manifests[-1]) == STEPS
    assert not list(interrupted.folder.rglob("*.partial"))
    assert not (interrupted.folder / "ray").exists()


def test_a_continued_run_has_the_results_of_an_undisturbed_one(interrupted, finish, folder, arguments):
    undisturbed = folder / "undisturbed"
    finish(*arguments(undisturbed))
    for step in ("rounds/000/train", "rounds/001/train", "stage2"):
        one, two = (load_weights((run / step / NETWORK).read_bytes()) for run in (interrupted.folder, undisturbed))
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=f"{step}: {name}")


def test_checkpoints_left_by_a_driver_killed_at_the_end_are_deleted_without_a_ray(
    interrupted, arguments, monkeypatch, capsys
):
    (interrupted.folder / "ray").mkdir()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # an attempt to join a Ray would fail
    assert main([str(argument) for argument in arguments(interrupted.folder)]) == 0
    assert "was finished before" in capsys.readouterr().out
    assert not (interrupted.folder / "ray").exists()
