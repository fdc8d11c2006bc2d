"""One small run from images to scores through the command line, its driver killed in every kind of step on the way."""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ray_kplm.errors import ConfigError, DataError, RunError

DEADLINE_S = 240


def kill_when(kplm, run: Path, step: str, path: str, *arguments) -> None:
    """Run the command and SIGKILL it as soon as the path is there in the run, made since the step was begun."""
    process = kplm(*arguments, start_new_session=True)
    deadline = time.monotonic() + DEADLINE_S
    claim = run / step / "claim.json"
    while not (begun := made(claim)) or not any(made(found) >= begun for found in run.glob(path)):
        assert process.poll() is None, f"ended before {path}: {process.stderr.read()[-2000:]}"
        assert time.monotonic() < deadline, f"{path} did not appear within {DEADLINE_S} s"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def made(path: Path) -> int:
    """When; 0: it is not there."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def manifests(run: Path) -> dict[str, int]:
    """Finished steps and when they were finished."""
    return {str(p.parent.relative_to(run)): p.stat().st_mtime_ns for p in run.rglob("manifest.json")}


def test_killed_in_every_step_it_ends_complete_and_repeats_nothing(kplm, finish, small, folder):
    run = folder / "run"
    train = ["train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={run}", *small]
    done: dict[str, int] = {}
    moments = [
        ("rounds/000/train", "ray/checkpoint_*"),
        ("rounds/000/features", "rounds/000/features/claim.json"),
        ("rounds/000/labels", "rounds/000/labels/claim.json"),
        ("stage2", "ray/checkpoint_*"),
    ]
    for step, path in moments:
        kill_when(kplm, run, step, path, *train)
        now = manifests(run)
        kept = {path: when for path, when in done.items() if not path.endswith("features")}
        assert kept.items() <= now.items(), "a finished step ran again"
        done = now
    out, _ = finish(*train)
    assert "done in" in out
    kept = {path: when for path, when in done.items() if not path.endswith("features")}
    assert kept.items() <= manifests(run).items()
    assert set(manifests(run)) == {
        "keypoints", "rounds/000/train", "rounds/000/labels", "rounds/001/train", "rounds/001/labels", "stage2",
    }  # fmt: skip
    assert not list(run.rglob("*.partial"))
    assert not (run / "ray").exists()

    started = time.monotonic()
    (run / "ray").mkdir()  # as if it had been killed after the last step
    out, _ = finish(*train)
    assert "was finished before" in out
    assert time.monotonic() - started < 30  # no Ray, no work
    assert not (run / "ray").exists()

    process = kplm(*train, "stage1.round_iterations=31")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == RunError.exit_code
    assert "stage1.round_iterations was 30, is 31" in err
    assert len(err.strip().splitlines()) == 1

    out, _ = finish("fork", run, folder / "forked", "stage2.iterations=61")
    assert "rounds/001/labels" in out
    assert "stage2" not in out.split("next:")[0]

    out, _ = finish("evaluate", run, "--json")
    scores = json.loads(out)
    assert scores["landmarks"] == 5
    assert scores["images"] + 0 > 10
    for name in ("forward_nme", "forward_nme_all", "backward_nme", "stage1_forward_nme", "mean_shape_nme", "seconds"):
        assert 0 < scores[name] < 200, name
    assert (run / "evaluation" / "curves.png").stat().st_size > 1000
    out, _ = finish("show", run, "--count", "6")
    assert Path(out.strip()).stat().st_size > 1000

    out, err = finish("report", run)
    assert out.strip() == str(run / "report" / "index.html")
    assert Path(out.strip()).read_text().count('class="card"') == 5
    assert "t-SNE" in err
    made = manifests(run)
    _, err = finish("report", run, "--images", "3")
    assert err.strip() == "the page ..."  # nothing is measured twice
    assert manifests(run) == made
    assert Path(out.strip()).read_text().count('class="shot"') == 3


def test_landmarks_come_back_in_source_pixels(folder):
    import numpy as np

    from ray_kplm import LandmarkDetector
    from ray_kplm.imaging.synthetic.category import render

    if not (folder / "run" / "stage2" / "manifest.json").exists():
        pytest.skip("the run of the test before did not finish")
    detector = LandmarkDetector.load(folder / "run")
    image = render(3, 5, 64).image
    large = np.kron(image, np.ones((3, 3, 1), np.uint8))
    one, three = detector.predict([image, large])
    assert one.xy.shape == (5, 2)
    assert one.confidence.shape == (5,)
    np.testing.assert_allclose(three.xy, one.xy * 3 + 1, atol=6)  # borders on borders: x -> 3 x + 1
    mirrored = detector.predict([image[:, ::-1]])[0].xy
    assert not np.allclose(mirrored, one.xy, atol=1)


def test_errors_are_one_line_with_the_way_out(kplm, folder):
    for arguments, words, kind in (
        (["train", "nowhere.yaml"], "no such configuration file", ConfigError),
        (["train", folder / "empty.yaml", "dataset=/nowhere", "run=x"], "kplm ingest", DataError),
        (["train", folder / "empty.yaml", "method.landmark=3"], "did you mean method.landmarks?", ConfigError),
        (["evaluate", folder], "no run directory", RunError),
        (["ingest", folder / "nothing", folder / "x"], "no such file or folder", DataError),
    ):
        process = kplm(*arguments)
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == kind.exit_code, err
        assert len(err.strip().splitlines()) == 1, err
        assert words in err
