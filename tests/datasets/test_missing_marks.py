"""Marks of missing points and points outside the picture: found in crops of any kind, not used as truth, and counted."""

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.datasets.dataset import Dataset, PartBuilder
from ray_kplm.datasets.landmark_arrays import landmark_arrays
from ray_kplm.datasets.missing_marks import PointCounts, count_marks, find_marks
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder

WHOLE = coordinates.translation(0, 0)
HALF = coordinates.scaling(4.3, 4.3)  # a picture of 400 x 300 px stored at 93 x 70
BOXED = coordinates.compose(coordinates.translation(310.0, 170.0), coordinates.scaling(2.7, 2.7))
MIRRORED = coordinates.compose(BOXED, coordinates.mirroring(93))


def marks_of(points, crop_to_source, box=None):
    """Marks of source points in one crop of 93 x 70 px."""
    crop = coordinates.apply(coordinates.invert(crop_to_source), np.array(points, np.float64)).astype(np.float32)
    images = {
        "width": [93],
        "height": [70],
        "box": pa.array([box], pa.list_(pa.float32())),
        "crop_to_source": [crop_to_source.ravel().tolist()],
    }
    found = find_marks(crop[None], pa.table(images))
    return found.missing[0].tolist(), found.outside[0].tolist()


@pytest.mark.parametrize("crop", [WHOLE, HALF, BOXED, MIRRORED], ids=["whole", "half", "boxed", "mirrored"])
@pytest.mark.parametrize("box", [None, [1.0, 2.0, 30.0, 40.0]], ids=["", "box"])
def test_marks_of_missing_points_are_found_in_the_source_frame(crop, box):
    points = [[-1, -1], [0, 0], [-999, -999], [1e6, 3], [-1e9, 0], [5, 5], [1, 0], [np.nan, np.nan], [0.5, 0.5]]
    missing, _ = marks_of(points, crop, box)
    assert missing == [True] * 5 + [False] * 4


def test_points_outside_a_whole_picture_are_found_on_all_sides_and_those_on_its_border_are_not():
    points = [[-4, 9], [9, -4], [99, 9], [9, 80], [93, 70], [-0.6, 9], [92.5, 69.5], [9, 9]]
    assert marks_of(points, WHOLE) == ([False] * 8, [True] * 4 + [False] * 4)


def test_of_a_crop_by_a_box_the_picture_goes_on_to_the_right_and_below():
    box = [1.0, 2.0, 30.0, 40.0]
    points = [[-4, 200], [310 - 40, 200], [310 + 93 * 2.7 + 30, 200], [400, 900]]
    assert marks_of(points, BOXED, box)[1] == [True, False, False, False]


def dataset(path, points) -> Dataset:
    """A train split of one image of 40 x 30 px for each row of points."""
    part = PartBuilder(len(points[0]))
    for i, row in enumerate(points):
        part.add(str(i), b"jpeg", np.zeros((30, 40, 3), np.uint8), None, WHOLE, {"landmarks": row})
    tables, root = part.tables(), Folder.at(path)
    assert count_marks(None, tables.images) == PointCounts()
    (root / "train" / "images").write_table("part-00000.parquet", tables.images)
    (root / "train" / "landmarks").write_table("part-00000.parquet", tables.landmarks)
    split = {"images": len(points), "parts": ["part-00000.parquet"], "rows": [len(points)]}
    root.write_json("dataset.json", {})
    manifest = {"kind": "dataset", "fingerprint": "f", "splits": {"train": split}, "landmarks": len(points[0])}
    root.write_json("manifest.json", manifest)
    return Dataset.open(path)


def test_the_evaluation_takes_marks_as_not_annotated_and_other_points_as_they_are(tmp_path):
    rows = [[[-1, -1], [5, 6], [60, 7]], [[np.nan, 3], [0, 0], [3, 4]]]
    arrays = landmark_arrays(dataset(tmp_path, rows), "train")
    assert arrays.marks == PointCounts(annotated=5, missing=2, outside=1)
    known = np.isfinite(arrays.landmarks).all(axis=2)
    assert known.tolist() == [[False, True, True], [False, False, True]]
    assert arrays.visible.tolist() == known.tolist()
    assert arrays.landmarks[0, 2].tolist() == [60, 7]
    assert arrays.landmarks.dtype == schemas.LANDMARKS.field("landmarks").type.value_type.value_type.to_pandas_dtype()


def test_what_is_said_has_the_numbers_and_nothing_is_said_of_sound_points(tmp_path):
    missing, outside = PointCounts(84, 12, 3).lines()
    assert missing.startswith("12 of 84 landmarks are at (-1, -1), at (0, 0) or far outside their picture")
    assert outside.startswith("3 of 84 landmarks lie outside their picture")
    assert landmark_arrays(dataset(tmp_path, [[[5, 6]], [[7, 8]]]), "train").marks.lines() == []
