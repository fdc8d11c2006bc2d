"""Predicted landmarks as formats take them: pictures with their objects, streamed one table at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.methods.visibility import ABSENT, FOUND, MIN_PROBABILITY, visibility_flags
from ray_kplm.points.layout import Layout

Tables = Callable[[], Iterable[pa.Table]]
"""Function that returns the tables of all parts (schemas.SOURCE_LANDMARKS), in order; it may be called several times."""


@dataclass(frozen=True, eq=False)
class Object:
    """The landmarks of one object in a picture.

    Attributes:
        xy: float64 (K, 2), source frame: pixels with pixel centres at integers; NaN where not detected.
        confidence: float64 (K,), heights of the heatmaps' peaks; 0 where not detected.
        probability: float64 (K,), of being found; None if the detector has no model of it.
        flags: int8 (K,), `visibility_flags`.
    """

    xy: NDArray[np.float64]
    confidence: NDArray[np.float64]
    probability: NDArray[np.float64] | None
    flags: NDArray[np.int8]

    @property
    def likelihood(self) -> NDArray[np.float64]:
        """(K,), 0 to 1: the probability; the confidence of a detector without a model of it."""
        return np.clip(self.confidence if self.probability is None else self.probability, 0, 1)

    @property
    def score(self) -> float:
        """The mean confidence of the landmarks that are not absent; 0 if all are."""
        present = self.flags > ABSENT
        return float(self.confidence[present].mean()) if present.any() else 0.0

    def inside(self, width: int, height: int) -> Object:
        """Return the object for formats that take no point beyond the picture: landmarks there are absent.

        The borders of the picture are at -0.5 and at its width and height - 0.5.
        """
        last = np.array([width, height]) - 0.5
        is_inside = ((self.xy >= -0.5) & (self.xy <= last)).all(axis=1)  # never of NaN
        flags = np.where(is_inside, self.flags, ABSENT).astype(np.int8)
        return replace(self, flags=flags)

    def extent(self) -> tuple[float, float, float, float]:
        """Return the bounding box of the landmarks that are not absent: x, y, width, height; zeros without any."""
        present = self.xy[self.flags > ABSENT]
        if not len(present):
            return 0.0, 0.0, 0.0, 0.0
        low, high = present.min(axis=0), present.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


@dataclass(frozen=True, eq=False)
class Picture:
    """A source picture.

    Attributes:
        number: Its number, from 1.
        file: Its path below the source folder; the id of the frame for a frame of a video.
        width: Pixels. Where a dataset of an earlier version does not know the size, the least that the points need.
        height: Pixels.
        objects: The landmarks of the objects in it.
        sequence: The video that it is a frame of, if it is one.
        frame: Index of the frame in the video.
        time: When the frame is shown, seconds; None: not known.
    """

    number: int
    file: str
    width: int
    height: int
    objects: list[Object]
    sequence: str | None = None
    frame: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class Predictions:
    """All that is exported.

    Attributes:
        tables: The parts.
        layout: Of the landmarks.
        min_probability: Least probability of a landmark that is found.
        detector: What tells the detector from others.
        version: Of this package.
        date: When the landmarks were predicted, ISO 8601; None: not known.
        are_whole: Whether each object is a whole picture, which is then its box in COCO, and not the extent of its landmarks.
    """

    tables: Tables
    layout: Layout
    min_probability: float = MIN_PROBABILITY
    detector: str = ""
    version: str = ""
    date: str | None = None
    are_whole: bool = False

    def pictures(self) -> Iterator[Picture]:
        """Yield the pictures in order; successive rows of one picture are its objects."""
        rows = (row for table in self.tables() for row in table.to_pylist())
        for number, (file, group) in enumerate(groupby(rows, key=_file_of), start=1):
            of_picture = list(group)
            objects = [self._object(row) for row in of_picture]
            width, height = (max(row[side] or 0 for row in of_picture) for side in ("width", "height"))
            if not width or not height:
                width, height = _least_size(objects)
            first = of_picture[0]
            yield Picture(
                number, file, width, height, objects, first.get("sequence"), first.get("frame"), first.get("time")
            )

    def _object(self, row: dict[str, Any]) -> Object:
        xy = np.asarray(row["xy"], np.float64).reshape(-1, 2)
        xy[~np.isfinite(xy).all(axis=1)] = np.nan
        confidence = np.nan_to_num(np.asarray(row["confidence"], np.float64))
        known = row["probability"] is not None
        probability = np.asarray(row["probability"], np.float64) if known else np.full(len(xy), np.nan)
        flags = visibility_flags(xy, probability, self.min_probability)
        return Object(xy, confidence, np.nan_to_num(probability) if known else None, flags)

    def with_skeleton(self) -> Predictions:
        """Return the same with a skeleton of the landmarks that are found together, unless it has one."""
        found = (
            np.where((one.flags == FOUND)[:, None], one.xy, np.nan)
            for picture in self.pictures()
            for one in picture.objects
        )
        return replace(self, layout=self.layout.joined(found))


def _least_size(objects: list[Object]) -> tuple[int, int]:
    """Return the width and height of the smallest picture that has all points of its objects."""
    xy = np.concatenate([one.xy[np.isfinite(one.xy).all(axis=1)] for one in objects])
    width, height = (max([1, *(math.floor(value + 0.5) + 1 for value in xy[:, axis])]) for axis in (0, 1))
    return width, height


def _file_of(row: dict[str, Any]) -> str:
    """Return the id of a picture: without the number of one of several objects in it, `path#3` for the fourth box."""
    image_id: str = row["image_id"]
    file, mark, number = image_id.rpartition("#")
    return file if mark and number.isdecimal() else image_id
