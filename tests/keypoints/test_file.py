"""Keypoints from a file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.keypoints import build_source
from ray_kplm.keypoints.file import FileSource
from ray_kplm.storage import Folder

ROWS = np.array([0, 1])


def images() -> pa.Table:
    """Two images: `a` is its source, `b` shows it at half the size, from (10, 20) on."""
    whole, half = [1.0, 0, 0, 0, 1, 0], [2.0, 0, 10, 0, 2, 20]
    return pa.table({"image_id": ["a", "b"], "crop_to_source": [whole, half], "width": [64, 64], "height": [48, 48]})


def written(tmp_path, rows: list[dict]) -> KeypointsConfig:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    return KeypointsConfig(detector="file", file=str(tmp_path / "mine.parquet"), limit=2)


def test_points_of_the_source_image_are_returned_in_the_crop_frame(tmp_path):
    config = written(
        tmp_path,
        [{"image_id": "b", "xy": [[10.0, 20.0], [30.0, 40.0]]}, {"image_id": "other", "xy": [[1.0, 1.0]]}],
    )
    none, found = build_source(config, Folder.at(tmp_path), 0)("part-00000.parquet", images(), ROWS)
    assert len(none.xy) == 0
    np.testing.assert_array_equal(found.xy, [[0, 0], [10, 10]])
    assert found.descriptors is None


def test_the_strongest_points_are_kept_and_points_that_are_not_finite_are_dropped(tmp_path):
    nan = float("nan")
    xy = [[1.0, 1.0], [nan, 2.0], [3.0, 3.0], [4.0, 4.0]]
    config = written(tmp_path, [{"image_id": "a", "xy": xy, "score": [0.1, 9.0, 0.5, 0.7]}])
    found, _ = FileSource(config)("part-00000.parquet", images(), ROWS)
    np.testing.assert_array_equal(found.xy, [[4, 4], [3, 3]])
    np.testing.assert_allclose(found.score, [0.7, 0.5])


def test_an_unusable_file_is_an_error_of_one_line(tmp_path):
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        FileSource(KeypointsConfig(detector="file", file=str(tmp_path / "none.parquet")))
    with pytest.raises(ConfigError, match="has no column xy"):
        FileSource(written(tmp_path, [{"image_id": "a", "points": [1.0]}]))
    scores = written(tmp_path, [{"image_id": "a", "xy": [[1.0, 1.0]], "score": [0.1, 0.2]}])
    with pytest.raises(DataError, match="a has xy of shape"):
        FileSource(scores)("part-00000.parquet", images(), ROWS)
