"""Ranges of a column of numbers, by which the errors of the test images are reported (thesis Table 6.6: yaw)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import ConfigError, DataError

_VALUES = 12
"""Up to as many different values a column needs no edges."""


@dataclass(frozen=True)
class Bucket:
    """Some of the images: which, (N,), and how they are called: `0 to 30`."""

    name: str
    images: NDArray[np.bool_]


@dataclass(frozen=True)
class Buckets:
    """The images of a split by one column; those outside of every bucket, or without a value, are in none."""

    column: str
    buckets: tuple[Bucket, ...]

    @property
    def left_out(self) -> int:
        """Images in no bucket."""
        return int((~np.any([bucket.images for bucket in self.buckets], axis=0)).sum())


def bucketed(text: str, columns: Mapping[str, ArrayLike]) -> Buckets:
    """Buckets of `yaw=0,30,60,90`: a <= yaw < b, the last one with its end; `|yaw|=...`: by the absolute value.

    text: without edges (`yaw`) each value is a bucket. columns: name -> (N,), NaN: no value.
    Raises DataError for a column that is not there, ConfigError for edges that do not rise.
    """
    label, given, edges = text.partition("=")
    label = label.strip()
    absolute = len(label) > 2 and label.startswith("|") and label.endswith("|")
    column = label[1:-1] if absolute else label
    if column not in columns:
        raise DataError(
            f"--by {text}: the dataset has no column {column!r} of numbers; it has {', '.join(sorted(columns)) or 'none'}"
        )
    values = np.asarray(columns[column], dtype=np.float64)
    values = np.abs(values) if absolute else values
    return Buckets(label, tuple(_ranges(text, edges, values) if given else _each(text, values)))


def _ranges(text: str, edges: str, values: NDArray[np.float64]) -> list[Bucket]:
    try:
        numbers = [float(edge) for edge in edges.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or not np.all(np.diff(numbers) > 0):
        raise ConfigError(f"--by {text}: edges must be two or more rising numbers, as in yaw=0,30,60,90")
    buckets = []
    for low, high in pairwise(numbers):
        below = values <= high if high == numbers[-1] else values < high
        buckets.append(Bucket(f"{low:g} to {high:g}", (values >= low) & below))
    return buckets


def _each(text: str, values: NDArray[np.float64]) -> list[Bucket]:
    found = np.unique(values[np.isfinite(values)])
    if len(found) > _VALUES:
        raise ConfigError(
            f"--by {text}: the column has {len(found)} different values; give ranges, as in {text}="
            f"{found[0]:g},{np.median(found):g},{found[-1]:g}"
        )
    return [Bucket(f"{value:g}", values == value) for value in found]
