"""Keypoints from a file, and mixed from annotation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_kplm import schemas
from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.keypoints import build_source
from ray_kplm.keypoints.given import FromFile
from ray_kplm.storage import Folder

ROWS = np.array([0, 1])


def images() -> pa.Table:
    """Two images: `a` is its source, `b` shows it at half the size, from (10, 20) on."""
    whole, half = [1.0, 0, 0, 0, 1, 0], [2.0, 0, 10, 0, 2, 20]
    return pa.table({"image_id": ["a", "b"], "crop_to_source": [whole, half], "width": [64, 64], "height": [48, 48]})


def written(tmp_path, rows: list[dict]) -> KeypointsConfig:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    return KeypointsConfig(detector="file", file=str(tmp_path / "mine.parquet"), limit=2)


def test_points_of_the_source_image_arrive_in_the_crop(tmp_path):
    config = written(
        tmp_path,
        [{"image_id": "b", "xy": [[10.0, 20.0], [30.0, 40.0]]}, {"image_id": "other", "xy": [[1.0, 1.0]]}],
    )
    none, found = build_source(config, Folder.at(tmp_path), 0)("part-00000.parquet", images(), ROWS)
    assert len(none.xy) == 0
    np.testing.assert_array_equal(found.xy, [[0, 0], [10, 10]])
    assert found.descriptors is None


def test_the_strongest_stay_and_points_that_are_no_numbers_go(tmp_path):
    nan = float("nan")
    xy = [[1.0, 1.0], [nan, 2.0], [3.0, 3.0], [4.0, 4.0]]
    config = written(tmp_path, [{"image_id": "a", "xy": xy, "score": [0.1, 9.0, 0.5, 0.7]}])
    found, _ = FromFile(config)("part-00000.parquet", images(), ROWS)
    np.testing.assert_array_equal(found.xy, [[4, 4], [3, 3]])
    np.testing.assert_allclose(found.score, [0.7, 0.5])


def test_files_that_cannot_be_used_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        FromFile(KeypointsConfig(detector="file", file=str(tmp_path / "none.parquet")))
    with pytest.raises(ConfigError, match="has no column xy"):
        FromFile(written(tmp_path, [{"image_id": "a", "points": [1.0]}]))
    scores = written(tmp_path, [{"image_id": "a", "xy": [[1.0, 1.0]], "score": [0.1, 0.2]}])
    with pytest.raises(DataError, match="a has xy of shape"):
        FromFile(scores)("part-00000.parquet", images(), ROWS)


@pytest.fixture
def landmarks(tmp_path) -> Folder:
    folder = Folder.at(tmp_path / "landmarks")
    nan = float("nan")
    xy = [[[float(10 * i), 20.0] for i in range(6)] + [[nan, nan]]] * 3
    columns = {"image_id": ["x", "a", "b"], "landmarks": xy, "visible": [[True] * 7] * 3, "group": [None] * 3,
               "attributes": [[]] * 3}  # fmt: skip
    folder.write_table("part-00003.parquet", pa.Table.from_pydict(columns, schema=schemas.LANDMARKS))
    return folder


def mixed(landmarks: Folder, share: float, seed: int = 0) -> list[np.ndarray]:
    source = build_source(KeypointsConfig(detector="noisy_gt", truth_share=share, limit=15), landmarks, seed)
    return [found.xy for found in source("part-00003.parquet", images(), np.array([1, 2]))]


def test_true_points_are_moved_a_little(landmarks):
    truth = np.array([[10.0 * i, 20.0] for i in range(6)])
    for xy in mixed(landmarks, 1.0):
        assert xy.shape == (6, 2)  # the seventh is not annotated
        apart = np.abs(xy[np.argsort(xy[:, 0])] - truth)
        assert apart.max() <= 0.012 * 64 + 1e-5
        assert apart.max() > 0


def test_random_points_are_anywhere_and_as_many(landmarks):
    for xy in mixed(landmarks, 0.0):
        assert xy.shape == (6, 2)
        assert np.abs(xy[:, 1] - 20).max() > 2
        assert ((xy >= 0) & (xy <= [63, 47])).all()


def test_the_share_is_the_share(landmarks):
    found = np.concatenate([xy for seed in range(100) for xy in mixed(landmarks, 0.4, seed)])
    assert np.mean(np.abs(found[:, 1] - 20) <= 0.8) == pytest.approx(0.4 + 0.6 * 1.6 / 47, abs=0.05)


def test_the_same_seed_gives_the_same_points_whatever_rows_are_asked_for(landmarks):
    source = build_source(KeypointsConfig(detector="noisy_gt"), landmarks, 5)
    both = source("part-00003.parquet", images(), np.array([1, 2]))
    (second,) = source("part-00003.parquet", images().slice(1), np.array([2]))
    np.testing.assert_array_equal(second.xy, both[1].xy)


def test_a_dataset_without_annotation_has_no_truth_to_mix(tmp_path):
    with pytest.raises(ConfigError, match="no annotated landmarks"):
        build_source(KeypointsConfig(detector="noisy_gt"), Folder.at(tmp_path / "none"), 0)
