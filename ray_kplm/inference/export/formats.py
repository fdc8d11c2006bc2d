"""Predicted landmarks (schemas.SOURCE_LANDMARKS) as CSV and as COCO keypoints, streamed one table at a time."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.inference.export.csv_cells import to_cell

Tables = Callable[[], Iterable[pa.Table]]
"""Function that returns the tables of all parts, in order; it may be called several times."""

_CATEGORY = 1
_VISIBLE, _NOT_LABELLED = 2, 0
"""COCO's visibility flags of a point."""


def to_csv(tables: Tables) -> Iterator[str]:
    """Yield a CSV file in pieces: `image_id,landmark,x,y,confidence`, with one line for each detected landmark.

    Coordinates are source pixels with pixel centres at integers. An id that a spreadsheet would take for a formula has an
    apostrophe before it, see `csv_cells`.
    """
    yield "image_id,landmark,x,y,confidence\n"
    for table in tables():
        text = io.StringIO()
        for row in table.to_pylist():
            cell = to_cell(row["image_id"])
            for landmark, ((x, y), confidence) in enumerate(zip(row["xy"], row["confidence"], strict=True)):
                if np.isfinite(x):
                    text.write(f"{cell},{landmark},{x:.3f},{y:.3f},{confidence:.4f}\n")
        yield text.getvalue()


def to_coco(tables: Tables, landmarks: int, name: str) -> Iterator[str]:
    """Yield a COCO keypoints file in pieces: an image for each source image, an annotation for each object in it.

    `keypoints` are x, y, v in source pixels with pixel centres at integers; v is 2 where the landmark was detected inside the
    image, else 0, with x and y 0. `score` is the mean confidence, `confidence` that of each landmark, `bbox` the bounding box
    of the points that have v = 2. An image has its width and height, pixels; where a dataset of an earlier version does not
    know them, they are the least that the points need.

    Args:
        tables: The predictions.
        landmarks: Number of landmarks, K.
        name: Name of the category.
    """
    names = [f"landmark_{k}" for k in range(landmarks)]
    category = {"id": _CATEGORY, "name": name, "keypoints": names, "skeleton": []}
    yield f'{{"categories": {json.dumps([category])},\n"images": ['
    yield from _joined(
        {"id": picture.number, "file_name": picture.file, "width": picture.width, "height": picture.height}
        for picture in _pictures(tables)
    )
    yield '],\n"annotations": ['
    objects = ((picture, row) for picture in _pictures(tables) for row in picture.objects)
    yield from _joined(_annotation(number, picture, row) for number, (picture, row) in enumerate(objects, start=1))
    yield "]}\n"


class _Picture(NamedTuple):
    """A source image: its number, name, size in pixels, and the rows of its objects."""

    number: int
    file: str
    width: int
    height: int
    objects: list[dict[str, Any]]


def _pictures(tables: Tables) -> Iterator[_Picture]:
    """Yield the source images; successive rows of one image are its objects."""
    rows = (row for table in tables() for row in table.to_pylist())
    for number, (file, group) in enumerate(groupby(rows, key=_file_of), start=1):
        objects = list(group)
        width, height = (max((row[side] or 0 for row in objects), default=0) for side in ("width", "height"))
        if not width or not height:
            found = [xy for row in objects for xy in row["xy"] if np.isfinite(xy).all()]
            width, height = (max([1, *(math.floor(xy[axis] + 0.5) + 1 for xy in found)]) for axis in (0, 1))
        yield _Picture(number, file, width, height, objects)


def _file_of(row: dict[str, Any]) -> str:
    image_id: str = row["image_id"]
    return image_id.rpartition("#")[0] if _is_one_of_several(image_id) else image_id


def _is_one_of_several(image_id: str) -> bool:
    """Return whether an id names one of several objects in an image: `path#3` is that of the fourth box."""
    return image_id.rpartition("#")[2].isdecimal() and "#" in image_id


def _annotation(number: int, picture: _Picture, row: dict[str, Any]) -> dict[str, Any]:
    xy = np.asarray(row["xy"], np.float64).reshape(-1, 2)
    last = np.array([picture.width, picture.height]) - 0.5
    inside: NDArray[np.bool_] = np.asarray(((xy >= -0.5) & (xy <= last)).all(axis=1))  # never of NaN
    xy = np.clip(xy, 0, last)
    confidence = np.nan_to_num(np.asarray(row["confidence"], np.float64))
    points = [
        [round(x, 3), round(y, 3), _VISIBLE] if is_inside else [0, 0, _NOT_LABELLED]
        for (x, y), is_inside in zip(xy.tolist(), inside.tolist(), strict=True)
    ]
    box = _extent(xy[inside])
    return {
        "id": number,
        "image_id": picture.number,
        "category_id": _CATEGORY,
        "keypoints": [value for point in points for value in point],
        "num_keypoints": int(inside.sum()),
        "bbox": box,
        "area": round(box[2] * box[3], 3),
        "iscrowd": 0,
        "score": round(float(confidence[inside].mean()), 5) if inside.any() else 0.0,
        "confidence": [round(value, 5) for value in confidence.tolist()],
    }


def _extent(xy_N2: NDArray[np.float64]) -> list[float]:
    """Return the bounding box of points: x, y, width and height."""
    if not len(xy_N2):
        return [0.0, 0.0, 0.0, 0.0]
    low, high = xy_N2.min(axis=0), xy_N2.max(axis=0)
    return [round(value, 3) for value in (*low.tolist(), *(high - low).tolist())]


def _joined(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the elements of a JSON list, one on each line."""
    for index, entry in enumerate(entries):
        yield (",\n" if index else "\n") + json.dumps(entry, allow_nan=False)
