"""Keypoints from a file."""

from __future__ import annotations

from decimal import Decimal

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
    with pytest.raises(DataError, match=r"mine\.parquet': a has xy of shape 1 x 2 and 2 scores"):
        FileSource(scores)("part-00000.parquet", images(), ROWS)


POINTS = [[10.0, 20.0], [30.0, 40.0]]


@pytest.mark.parametrize(
    ("ids", "xy"),
    [
        (pa.array(["a", "b"], pa.large_string()), pa.array([POINTS] * 2, pa.large_list(pa.large_list(pa.float32())))),
        (pa.array(["a", "b"], pa.string_view()), pa.array([POINTS] * 2, pa.list_view(pa.list_view(pa.float64())))),
        (pa.array(["a", "b"]).dictionary_encode(), pa.array([POINTS] * 2, pa.list_(pa.list_(pa.int16(), 2), 2))),
        (pa.array(["a", "b"]), pa.array([[{"x": x, "y": y} for x, y in POINTS]] * 2)),
        (pa.array(["a", "b"]), pa.array([[[Decimal(10), Decimal(20)], [Decimal(30), Decimal(40)]]] * 2)),
        (pa.array(["a", "b"]), pa.array([[list(np.array(point, np.float16)) for point in POINTS]] * 2)),
    ],
    ids=["large", "view", "dictionary and fixed size", "struct", "decimal", "half"],
)
def test_columns_of_any_type_are_read(tmp_path, ids, xy):
    pq.write_table(pa.table({"image_id": ids, "xy": xy}), tmp_path / "mine.parquet")
    source = FileSource(KeypointsConfig(detector="file", file=str(tmp_path / "mine.parquet")))
    whole, half = source("part-00000.parquet", images(), ROWS)
    np.testing.assert_array_equal(whole.xy, POINTS)
    np.testing.assert_array_equal(half.xy, [[0, 0], [10, 10]])
    assert source.match(["a", "b"]) == "keypoints.file: all 2 rows name an image"


def test_whole_numbers_are_ids_where_images_are_called_so(tmp_path):
    pq.write_table(pa.table({"image_id": [3, 7], "xy": [POINTS[:1], POINTS]}), tmp_path / "mine.parquet")
    source = FileSource(KeypointsConfig(detector="file", file=str(tmp_path / "mine.parquet")))
    numbered = images().set_column(0, "image_id", pa.array(["7", "03"]))
    seven, none = source("part-00000.parquet", numbered, ROWS)
    assert (len(seven.xy), len(none.xy)) == (2, 0)
    with pytest.raises(ConfigError, match=r"keypoints.file: none of 2 rows .* says '3', an image is 'a'"):
        source.match(["a", "b"])


def test_rows_of_one_image_are_joined_and_the_strongest_of_all_are_kept(tmp_path):
    rows = [
        {"image_id": "a", "xy": [[1.0, 1.0], None], "score": [0.2, 0.9]},
        {"image_id": "b", "xy": None, "score": None},
        {"image_id": "./a", "xy": [[2.0, 2.0], [3.0, 3.0], [4.0, None]], "score": [0.1, 0.3, 0.8]},
    ]
    source = FileSource(written(tmp_path, rows))
    found, none = source("part-00000.parquet", images(), ROWS)
    np.testing.assert_array_equal(found.xy, [[3, 3], [1, 1]])
    assert len(none.xy) == 0
    assert source.match(["a", "b"]) == "keypoints.file: all 3 rows name an image"


def test_ids_that_name_no_image_are_counted_and_none_that_does_is_refused(tmp_path):
    rows = [{"image_id": name, "xy": POINTS} for name in ("a", "B.jpg", "c")]
    source = FileSource(written(tmp_path, rows))
    assert source.match(["a", "x/b.png"]) == (
        "keypoints.file: 1 of 3 rows name an image, 2 name none, e.g. 'B.jpg' (there is 'x/b.png')"
    )
    with pytest.raises(ConfigError, match=r"none of 3 rows names an image.*says 'a', an image is 'photos/q'"):
        source.match(["photos/q"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_id": ["a"], "xy": [[1.0, 2.0]]}, "column xy must be lists of pairs x, y, is list<element: double>"),
        ({"image_id": ["a"], "xy": ["1 2"]}, "column xy must be lists of pairs x, y, is string"),
        ({"image_id": [1.5], "xy": [POINTS]}, "column image_id must be text or whole numbers, is double"),
        ({"image_id": ["a"], "xy": [POINTS], "score": [0.5]}, "column score must be lists of numbers, is double"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    with pytest.raises(ConfigError, match=message) as caught:
        FileSource(KeypointsConfig(detector="file", file=str(tmp_path / "mine.parquet")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("points", [[[1.0, 2.0, 3.0, 4.0]] * 2, [[1.0, 2.0], [3.0]], [[1.0, 2.0, 0.9]]])
def test_points_of_another_shape_are_refused_with_their_image(tmp_path, points):
    source = FileSource(written(tmp_path, [{"image_id": "b", "xy": points}]))
    with pytest.raises(DataError, match=r"mine\.parquet': b has xy of shape"):
        source("part-00000.parquet", images(), ROWS)
