"""Commands on one finished run, as processes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ray_kplm import LandmarkDetector
from ray_kplm.errors import ConfigError, DataError, RunError
from ray_kplm.imaging.synthetic.category import render

DEADLINE_S = 600


@pytest.fixture(scope="module")
def train(small, folder):
    """Arguments of the command that trains the run."""
    return ["train", folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={folder / 'run'}", *small]


@pytest.fixture(scope="module")
def run(finish, train, folder) -> Path:
    finish(*train)
    return folder / "run"


@pytest.fixture(scope="module")
def scores(finish, run) -> dict:
    """What `kplm evaluate --json` prints."""
    return json.loads(finish("evaluate", run, "--json")[0])


def without_notes(err: str) -> list[str]:
    """The lines of a command, without those that say what a busy machine waits for."""
    waits = ("kplm: loading", "kplm: starting Ray", "kplm: Ray is still starting")
    return [line for line in err.strip().splitlines() if not line.startswith(waits)]


def test_another_configuration_for_a_run_is_refused_in_one_line(kplm, run, train):
    process = kplm(*train, "stage1.round_iterations=31")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == RunError.exit_code
    assert "stage1.round_iterations was 30, is 31" in err
    assert len(without_notes(err)) == 1


def test_a_fork_takes_over_the_steps_before_the_change(finish, run, folder):
    out, _ = finish("fork", run, folder / "forked", "stage2.iterations=61")
    assert "rounds/001/labels" in out
    assert "stage2" not in out.split("next:")[0]


def test_evaluate_prints_the_scores_that_it_keeps(scores, run):
    kept = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert len(kept.pop("per_image")["forward_nme"]) == scores["images"]  # too many figures to print
    assert scores == kept
    assert scores["landmarks"] == 5
    assert scores["images"] == 24
    assert (run / "evaluation" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_show_prints_the_path_of_a_picture(finish, run):
    out, _ = finish("show", run, "--count", "6")
    assert Path(out.strip()).read_bytes().startswith(b"\x89PNG")


def test_a_report_measures_once_and_shows_every_landmark(finish, run):
    out, err = finish("report", run)
    page = Path(out.strip())
    assert page == run / "report" / "index.html"
    assert page.read_text().count('class="card"') == 5
    assert "t-SNE" in err
    measured = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    _, err = finish("report", run, "--images", "3")
    assert without_notes(err) == ["[100%] the page"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")} == measured
    assert page.read_text().count('class="shot"') == 3


def test_the_detector_of_a_run_gives_landmarks_in_source_pixels(run):
    detector = LandmarkDetector.load(run)
    image = render(3, 5, 64).image
    large = np.kron(image, np.ones((3, 3, 1), np.uint8))
    one, three = detector.predict([image, large])
    assert one.xy.shape == (5, 2)
    assert one.confidence.shape == (5,)
    np.testing.assert_allclose(three.xy, one.xy * 3 + 1, atol=6)  # pixel centres at integers: x -> 3 x + 1
    mirrored = detector.predict([image[:, ::-1]])[0].xy
    assert not np.allclose(mirrored, one.xy, atol=1)


def test_an_error_is_one_line_with_the_way_out(kplm, folder):
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
        assert len(without_notes(err)) == 1, err
        assert words in err
