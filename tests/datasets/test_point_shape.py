"""Rows of points: their shape is that of all rows, and one that leaves a doubt is refused."""

import math

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.datasets.columns import POINTS_TYPE
from ray_kplm.datasets.point_shape import PointShape, point_shape, points_array
from ray_kplm.errors import DataError

NAN = float("nan")


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([[[1, 2], [3, 4], [5, 6]], None, []], PointShape(3, transposed=False)),
        ([[[1, 2], [3, 4]]], PointShape(2, transposed=False)),
        ([[[1, 2], None]], PointShape(2, transposed=False)),
        ([[[1, 2, 3, 4], [5, 6, 7, 8]], None], PointShape(4, transposed=True)),
    ],
)
def test_the_shape_of_points_is_that_of_all_rows(rows, shape):
    assert point_shape("s", [pa.array([row], POINTS_TYPE) for row in rows]) == shape


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[[1, 2, 3], [4, 5, 6]]], "found 2 x 3"),  # two points with a third value, or three points turned
        ([[[1, 2, 3]] * 5], "found 5 x 3"),
        ([[[1, 2], [3]]], "found 2 x 1 and 2 x 2"),
        ([[[1, 2]], [[1, 2]] * 2], r"same number of landmarks, found \[1, 2\]"),
        ([[], None], "found none"),
        ([[None, None]], "nothing but nulls"),
    ],
)
def test_a_shape_that_leaves_a_doubt_is_refused(rows, message):
    with pytest.raises(DataError, match=f"^s: every .*{message}"):
        point_shape("s", [pa.array(rows, POINTS_TYPE)])


def test_points_of_a_row_are_an_array_with_nan_for_what_is_missing():
    plain, turned = PointShape(2, transposed=False), PointShape(4, transposed=True)
    np.testing.assert_array_equal(points_array([[1, None], None], plain), [[1, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(points_array([[1, 2, 3, 4], None], turned), [[v, NAN] for v in (1, 2, 3, 4)])
    assert points_array(None, plain) is None
    assert points_array([], plain) is None
    assert math.isclose(points_array([[1, 2.5], [3, 4]], plain)[0, 1], 2.5)
