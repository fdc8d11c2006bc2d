"""Generic keypoints of single images, as a run began with them, and the outlier rule; no Ray is started."""

from __future__ import annotations

import numpy as np
import pytest
import ray

from ray_kplm.analysis import label_free
from ray_kplm.config import KeypointsConfig
from ray_kplm.datasets.dataset import PartBuilder
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import encode_png
from ray_kplm.runtime.map_parts import Pool
from ray_kplm.schemas import IMAGES
from ray_kplm.steps.detect import DetectPart, keypoint_finder
from ray_kplm.steps.keypoint_sample import FindKeypoints, OutlierRule, sample_keypoints
from ray_kplm.storage import Folder

PART = "part-00000.parquet"
CONFIG = KeypointsConfig(detector="sift", limit=30)
ROWS = np.array([0, 2])


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))


@pytest.fixture
def images(tmp_path) -> Folder:
    """Three pictures of squares of random greys."""
    part, rng = PartBuilder(0), np.random.default_rng(3)
    for i in range(3):
        image = np.kron(rng.integers(0, 255, (8, 8, 1), dtype=np.uint8), np.ones((12, 12, 3), np.uint8))
        part.add(f"{i}", encode_png(image), image, None, coordinates.translation(0, 0), None)
    folder = Folder.at(tmp_path / "images")
    folder.write_table(PART, part.tables().images.cast(IMAGES))
    return folder


def test_a_picture_of_the_start_shows_the_keypoints_that_the_run_began_with(images, tmp_path):
    landmarks, detected = Folder.at(tmp_path / "landmarks"), Folder.at(tmp_path / "keypoints")
    plain = keypoint_finder(images, landmarks, detected, CONFIG, 0)(PART, ROWS)
    descriptors = np.concatenate([k.descriptors for k in FindKeypoints(images, landmarks, CONFIG, 0)(PART, ROWS)[1]])
    rule = OutlierRule(descriptors, limit=float(np.linalg.norm(descriptors[:, None] - descriptors, axis=2).mean()))
    detected.write_bytes("outliers.npz", rule.to_bytes())
    DetectPart(FindKeypoints(images, landmarks, CONFIG, 0), detected, described=False)(PART, ROWS)
    stored = [np.reshape(xy, (-1, 2)) for xy in detected.read_table(PART)["xy"].to_pylist()]
    found = keypoint_finder(images, landmarks, detected, CONFIG, 0)(PART, ROWS)
    for xy, expected in zip(found, stored, strict=True):
        np.testing.assert_array_equal(xy, expected.astype(np.float32))
    assert 0 < sum(map(len, found)) < sum(map(len, plain))


class Sampled(Exception):
    """Raised in place of a sample, with its seed."""


def sample(self: Selection, count: int, seed: tuple[int, ...], parts: int | None = None) -> Selection:
    raise Sampled(*seed)


def test_the_outlier_rule_and_the_quality_are_made_from_independent_samples(tmp_path, monkeypatch):
    folder, whole = Folder.at(tmp_path), full_selection(["part-00000.parquet"], [1000])
    find = FindKeypoints(folder, folder, KeypointsConfig(), 5)
    with monkeypatch.context() as patch:
        patch.setattr(Selection, "sample", sample)
        with pytest.raises(Sampled) as sampled:
            sample_keypoints(find, whole, 5, Pool(1))
    of_rule, of_quality = (whole.sample(100, seed).rows[0] for seed in (sampled.value.args, (5, label_free._SAMPLE)))
    assert len(np.intersect1d(of_rule, of_quality)) < 30  # 10 are expected by chance
