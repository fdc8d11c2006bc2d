"""Keypoints from annotation with noise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints import build_source
from ray_kplm.storage import Folder


def images() -> pa.Table:
    """Two images of 64 x 48 pixels."""
    whole = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    columns = {"image_id": ["a", "b"], "width": [64, 64], "height": [48, 48], "crop_to_source": [whole, whole]}
    return pa.table({**columns, "box": pa.nulls(2, pa.list_(pa.float32()))})


@pytest.fixture
def landmarks(tmp_path) -> Folder:
    folder = Folder.at(tmp_path / "landmarks")
    nan = float("nan")
    xy = [[[float(10 * i), 20.0] for i in range(6)] + [[nan, nan], [-1.0, -1.0]]] * 3
    columns = {"image_id": ["x", "a", "b"], "landmarks": xy, "visible": [[True] * 8] * 3, "group": [None] * 3,
               "attributes": [[]] * 3}  # fmt: skip
    folder.write_table("part-00003.parquet", pa.Table.from_pydict(columns, schema=schemas.LANDMARKS))
    return folder


def noisy(landmarks: Folder, share: float, seed: int = 0) -> list[np.ndarray]:
    source = build_source(KeypointsConfig(detector="noisy_gt", truth_share=share, limit=15), landmarks, seed)
    return [found.xy for found in source("part-00003.parquet", images(), np.array([1, 2]))]


def test_annotated_points_are_moved_a_little(landmarks):
    truth = np.array([[10.0 * i, 20.0] for i in range(6)])
    for xy in noisy(landmarks, 1.0):
        assert xy.shape == (6, 2)  # the others are not annotated
        apart = np.abs(xy[np.argsort(xy[:, 0])] - truth)
        assert apart.max() <= 0.012 * 64 + 1e-5
        assert apart.max() > 0


def test_random_points_are_anywhere_and_equally_many(landmarks):
    for xy in noisy(landmarks, 0.0):
        assert xy.shape == (6, 2)
        assert np.abs(xy[:, 1] - 20).max() > 2
        assert ((xy >= 0) & (xy <= [63, 47])).all()


def test_the_share_of_annotated_points_is_the_configured_one(landmarks):
    found = np.concatenate([xy for seed in range(100) for xy in noisy(landmarks, 0.4, seed)])
    assert np.mean(np.abs(found[:, 1] - 20) <= 0.8) == pytest.approx(0.4 + 0.6 * 1.6 / 47, abs=0.05)


def test_the_points_of_a_row_depend_on_the_seed_alone(landmarks):
    source = build_source(KeypointsConfig(detector="noisy_gt"), landmarks, 5)
    both = source("part-00003.parquet", images(), np.array([1, 2]))
    (second,) = source("part-00003.parquet", images().slice(1), np.array([2]))
    np.testing.assert_array_equal(second.xy, both[1].xy)


def test_a_dataset_without_annotation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no annotated landmarks"):
        build_source(KeypointsConfig(detector="noisy_gt"), Folder.at(tmp_path / "none"), 0)
