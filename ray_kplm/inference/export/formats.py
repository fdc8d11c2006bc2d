"""Predicted landmarks (schemas.SOURCE_LANDMARKS) as CSV and as COCO keypoints, streamed: a table at a time, at any length."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Tables = Callable[[], Iterable[pa.Table]]
"""The parts, from the first, as often as it is called."""

_CATEGORY = 1
_FOUND, _ABSENT = 2, 0
"""COCO's visibility of a point: labelled and visible, and not labelled."""


def to_csv(tables: Tables) -> Iterator[str]:
    """Lines `image_id,landmark,x,y,confidence`, one a landmark that was found: source pixels, centres at integers."""
    yield "image_id,landmark,x,y,confidence\n"
    for table in tables():
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        for row in table.to_pylist():
            for landmark, ((x, y), confidence) in enumerate(zip(row["xy"], row["confidence"], strict=True)):
                if np.isfinite(x):
                    lines.writerow([row["image_id"], landmark, f"{x:.3f}", f"{y:.3f}", f"{confidence:.4f}"])
        yield text.getvalue()


def to_coco(tables: Tables, landmarks: int, name: str) -> Iterator[str]:
    """Pieces of a COCO keypoints file: an image for each picture, an annotation for each object in it.

    `keypoints` are x, y, v in source pixels, centres at integers; v is 2 where the landmark was found and 0 where not. `score`
    is the mean confidence, `confidence` that of each landmark, `bbox` the extent of the points. An image's size is there where
    it is known: of a whole picture.
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
    """Each row, the id of its picture, and the picture's entry the first time that it comes."""
    number, last = 0, None
    for table in tables():
        for row in table.to_pylist():
            picture = row["image_id"].rpartition("#")[0] if _is_one_of_several(row["image_id"]) else row["image_id"]
            entry: dict[str, Any] = {}
            if picture != last:
                number, last = number + 1, picture
                entry = {"id": number, "file_name": picture}
                if row["width"] is not None:
                    entry |= {"width": row["width"], "height": row["height"]}
            yield row, number, entry


def _is_one_of_several(image_id: str) -> bool:
    """`path#3`: the object of the fourth box in a picture."""
    return image_id.rpartition("#")[2].isdecimal() and "#" in image_id


def _annotation(number: int, image: int, row: dict[str, Any]) -> dict[str, Any]:
    xy = np.asarray(row["xy"], np.float64).reshape(-1, 2)
    found = np.asarray(np.isfinite(xy).all(axis=1))
    confidence = np.asarray(row["confidence"], np.float64)
    points = [
        [round(x, 3), round(y, 3), _FOUND] if there else [0, 0, _ABSENT]
        for (x, y), there in zip(xy.tolist(), list(found), strict=True)
    ]
    box = _extent(xy[found])
    return {
        "id": number,
        "image_id": image,
        "category_id": _CATEGORY,
        "keypoints": [value for point in points for value in point],
        "num_keypoints": int(found.sum()),
        "bbox": box,
        "area": round(box[2] * box[3], 3),
        "iscrowd": 0,
        "score": round(float(confidence[found].mean()), 5) if found.any() else 0.0,
        "confidence": [round(value, 5) for value in confidence.tolist()],
    }


def _extent(xy_N2: NDArray[np.float64]) -> list[float]:
    """x, y, width, height."""
    if not len(xy_N2):
        return [0.0, 0.0, 0.0, 0.0]
    low, high = xy_N2.min(axis=0), xy_N2.max(axis=0)
    return [round(value, 3) for value in (*low.tolist(), *(high - low).tolist())]


def _joined(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    for place, entry in enumerate(entries):
        yield (",\n" if place else "\n") + json.dumps(entry, allow_nan=False)
