"""Grouping of the test images by ranges of a numeric column, for errors by range (thesis Table 6.6: yaw)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import ConfigError, DataError

_MAX_DISTINCT_VALUES = 12
"""A column with more distinct values than this needs edges."""


@dataclass(frozen=True)
class Bucket:
    """A group of images: its name, as `0 to 30`, and a mask (N,) of its images."""

    name: str
    images: NDArray[np.bool_]


@dataclass(frozen=True)
class Buckets:
    """The images of a split grouped by one column; an image without a value or outside of all ranges is in no bucket."""

    column: str
    buckets: tuple[Bucket, ...]

    @property
    def left_out(self) -> int:
        """Number of images in no bucket."""
        return int((~np.any([bucket.images for bucket in self.buckets], axis=0)).sum())


def bucketed(text: str, columns: Mapping[str, ArrayLike]) -> Buckets:
    """Group images by a column as `text` describes.

    Args:
        text: `yaw=0,30,60,90` gives buckets a <= yaw < b, of which the last includes its upper edge; `|yaw|=...` takes
            absolute values; `yaw`, without edges, makes each distinct value a bucket.
        columns: Name -> values (N,), NaN for no value.

    Raises:
        DataError: The column does not exist.
        ConfigError: The edges are not two or more increasing numbers, or a column without edges has too many values.
    """
    label, has_edges, edges = text.partition("=")
    label = label.strip()
    absolute = len(label) > 2 and label.startswith("|") and label.endswith("|")
    column = label[1:-1] if absolute else label
    if column not in columns:
        raise DataError(
            f"--by {text}: the dataset has no column {column!r} of numbers; it has {', '.join(sorted(columns)) or 'none'}"
        )
    values = np.asarray(columns[column], dtype=np.float64)
    values = np.abs(values) if absolute else values
    return Buckets(label, tuple(_ranges(text, edges, values) if has_edges else _distinct(text, values)))


def _ranges(text: str, edges: str, values: NDArray[np.float64]) -> list[Bucket]:
    try:
        numbers = [float(edge) for edge in edges.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or not np.all(np.diff(numbers) > 0):
        raise ConfigError(f"--by {text}: edges must be two or more increasing numbers, as in yaw=0,30,60,90")
    buckets = []
    for low, high in pairwise(numbers):
        below = values <= high if high == numbers[-1] else values < high
        buckets.append(Bucket(f"{low:g} to {high:g}", (values >= low) & below))
    return buckets


def _distinct(text: str, values: NDArray[np.float64]) -> list[Bucket]:
    distinct = np.unique(values[np.isfinite(values)])
    if len(distinct) > _MAX_DISTINCT_VALUES:
        raise ConfigError(
            f"--by {text}: the column has {len(distinct)} distinct values; give ranges, as in {text}="
            f"{distinct[0]:g},{np.median(distinct):g},{distinct[-1]:g}"
        )
    return [Bucket(f"{value:g}", values == value) for value in distinct]
