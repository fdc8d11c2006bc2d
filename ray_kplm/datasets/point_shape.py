"""The shape of a column of points: which way its rows lie, and how many points they have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_kplm.errors import DataError


class PointShape(NamedTuple):
    """The shape of all annotated rows of a points column.

    Attributes:
        landmarks: L.
        transposed: Whether the rows are (2, L) in place of (L, 2).
        halves: Number of points with one coordinate, which are taken as not annotated.
    """

    landmarks: int
    transposed: bool
    halves: int = 0

    def lines(self, name: str) -> list[str]:
        """Return what a user is told of the points of a source, a line each."""
        lines = []
        if self.transposed:
            lines.append(f"{name}: landmarks are stored as 2 x {self.landmarks}: all x, then all y")
        if self.halves:
            lines.append(f"{name}: {self.halves} landmarks have one coordinate: they are taken as not annotated")
        return lines


def point_shape(name: str, columns: Iterable[pa.Array]) -> PointShape:
    """Return the shape of points, which must be the same in all annotated rows.

    Args:
        name: The source, for errors.
        columns: Slices of the column, list<list<double>>.

    Raises:
        DataError: The numbers of landmarks differ, or a landmark is no pair.
    """
    lengths: set[int] = set()
    widths: set[int] = set()
    halves = 0
    for column in columns:
        lengths.update(length for length in pc.unique(pc.list_value_length(column)).to_pylist() if length)
        inner = pc.unique(pc.list_value_length(pc.list_flatten(column))).to_pylist()
        widths.update(width for width in inner if width is not None)
        if widths == {2}:
            finite = np.isfinite(pc.list_flatten(pc.list_flatten(column)).to_numpy(zero_copy_only=False).reshape(-1, 2))
            halves += int((finite.sum(axis=1) == 1).sum())
    numbers = sorted(lengths)
    if len(numbers) != 1:
        raise DataError(f"{name}: every image must have the same number of landmarks, found {numbers or 'none'}")
    if widths == {2}:
        return PointShape(numbers[0], transposed=False, halves=halves)
    if numbers == [2] and len(widths) == 1 and (count := next(iter(widths))) > 3:
        return PointShape(count, transposed=True)
    found = " and ".join(f"{numbers[0]} x {width}" for width in sorted(widths)) or "nothing but nulls"
    raise DataError(
        f"{name}: every landmark must be a pair x, y, found {found}; NaN, NaN where it is not annotated, and whether it is "
        f"visible in a column visible"
    )


def points_array(row: Iterable[Any] | None, shape: PointShape) -> NDArray[np.float64] | None:
    """Return the points of one row, (L, 2); NaN where a point or a coordinate is missing. None: the row has no points."""
    lists = list(row or ())
    if not lists:
        return None
    width = shape.landmarks if shape.transposed else 2
    rows = [[math.nan] * width if values is None else values for values in lists]
    points = np.array(rows, dtype=np.float64)  # None becomes NaN
    return points.T if shape.transposed else points
