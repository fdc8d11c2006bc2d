"""Objects seen from the side, from images to landmarks that know which way they face, as processes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ray_kplm import LandmarkDetector
from ray_kplm.detectors.stored import export
from ray_kplm.imaging.synthetic.category import render, write_category
from ray_kplm.run import Run
from ray_kplm.storage import Folder


@pytest.fixture(scope="module")
def run(finish, small, tmp_path_factory) -> Path:
    """A finished run on 96 training images of animals."""
    folder = tmp_path_factory.mktemp("animals")
    write_category(folder / "images", 120, kind="profile", size=64)
    (folder / "empty.yaml").write_text("")
    finish("ingest", folder / "images", folder / "dataset", "--part-images", 32)
    paths = [f"dataset={folder / 'dataset'}", f"run={folder / 'run'}"]
    _, log = finish("train", folder / "empty.yaml", *paths, *small, "method.mirror=auto", "augment.paste=0.5")
    assert "mirror images face the other way: " in log
    return folder / "run"


@pytest.fixture(scope="module")
def animals() -> np.ndarray:
    """Twelve images that the run has not seen: uint8 (12, 64, 64, 3)."""
    return np.stack([render(7, i, 64, kind="profile").image for i in range(12)])


def test_predictions_come_with_the_facing_and_those_of_a_mirror_image_are_mirrored(run, animals):
    detector = LandmarkDetector.load(run, device="cpu")
    plain, mirrored = (detector.predict(list(images)) for images in (animals, animals[:, :, ::-1]))
    assert len({np.sign(found.facing) for found in plain}) == 2
    for one, other in zip(plain, mirrored, strict=True):
        assert other.facing == pytest.approx(-one.facing, abs=0.2)
        if abs(one.facing) > 0.2:
            np.testing.assert_allclose(63 - other.xy[:, 0], one.xy[:, 0], atol=0.01)
            np.testing.assert_allclose(other.xy[:, 1], one.xy[:, 1], atol=0.01)
            np.testing.assert_allclose(other.confidence, one.confidence, atol=1e-4)


def test_an_exported_detector_has_the_facing_with_it(run, animals, tmp_path):
    export(Run.open(str(run)), Folder.at(tmp_path / "detector"))
    for one, other in zip(
        *(LandmarkDetector.load(path, device="cpu").predict(list(animals)) for path in (run, tmp_path / "detector")),
        strict=True,
    ):
        assert other.facing == one.facing
        np.testing.assert_array_equal(other.xy, one.xy)


def test_landmarks_are_themselves_in_the_mirror(run):
    channels = json.loads((run / "stage2" / "channels.json").read_text())
    assert channels["flip_map"] == list(range(5))


def test_a_finished_run_is_evaluated_and_its_report_shows_both_ways(finish, run):
    scores = json.loads(finish("evaluate", run, "--json")[0])
    assert scores["landmarks"] == 5
    assert scores["forward_nme"] > 0
    out, _ = finish("report", run)
    page = Path(out.strip().splitlines()[-1]).read_text()
    assert "Mirror images face the other way: " in page
    assert "Facing one way: " in page
    assert "Facing the other way: " in page
