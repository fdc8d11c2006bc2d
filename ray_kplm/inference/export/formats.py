"""Predicted landmarks (schemas.SOURCE_LANDMARKS) as CSV and as COCO keypoints, streamed one table at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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

    `keypoints` are x, y, v in source pixels with pixel centres at integers; v is 2 where the landmark was detected, else 0.
    `score` is the mean confidence, `confidence` that of each landmark, `bbox` the bounding box of the points. The size of an
    image is given if it was not cropped.

    Args:
        tables: The predictions.
        landmarks: Number of landmarks, K.
        name: Name of the category.
    """
    names = [f"landmark_{k}" for k in range(landmarks)]
    category = {"id": _CATEGORY, "name": name, "keypoints": names, "skeleton": []}
    yield f'{{"categories": {json.dumps([category])},\n"images": ['
    yield from _joined(image for _, _, image in _objects(tables) if image)
    yield '],\n"annotations": ['
    yield from _joined(
        _annotation(number, image, row) for number, (row, image, _) in enumerate(_objects(tables), start=1)
    )
    yield "]}\n"


def _objects(tables: Tables) -> Iterator[tuple[dict[str, Any], int, dict[str, Any]]]:
    """Yield each row, the number of its source image, and the image's entry, empty but for its first object."""
    number, last = 0, None
    for table in tables():
        for row in table.to_pylist():
            file = row["image_id"].rpartition("#")[0] if _is_one_of_several(row["image_id"]) else row["image_id"]
            entry: dict[str, Any] = {}
            if file != last:
                number, last = number + 1, file
                entry = {"id": number, "file_name": file}
                if row["width"] is not None:
                    entry |= {"width": row["width"], "height": row["height"]}
            yield row, number, entry


def _is_one_of_several(image_id: str) -> bool:
    """Return whether an id names one of several objects in an image: `path#3` is that of the fourth box."""
    return image_id.rpartition("#")[2].isdecimal() and "#" in image_id


def _annotation(number: int, image: int, row: dict[str, Any]) -> dict[str, Any]:
    xy = np.asarray(row["xy"], np.float64).reshape(-1, 2)
    detected = np.asarray(np.isfinite(xy).all(axis=1))
    confidence = np.asarray(row["confidence"], np.float64)
    points = [
        [round(x, 3), round(y, 3), _VISIBLE] if is_detected else [0, 0, _NOT_LABELLED]
        for (x, y), is_detected in zip(xy.tolist(), list(detected), strict=True)
    ]
    box = _extent(xy[detected])
    return {
        "id": number,
        "image_id": image,
        "category_id": _CATEGORY,
        "keypoints": [value for point in points for value in point],
        "num_keypoints": int(detected.sum()),
        "bbox": box,
        "area": round(box[2] * box[3], 3),
        "iscrowd": 0,
        "score": round(float(confidence[detected].mean()), 5) if detected.any() else 0.0,
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
