"""Entries of a COCO keypoints file: what predictions and annotated points have in common there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CATEGORY = 1
"""Id of the one category."""


def category_entry(name: str, points: Sequence[str], skeleton: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return the category. COCO numbers the points of the skeleton from 1."""
    edges = [[a + 1, b + 1] for a, b in skeleton]
    return {"id": CATEGORY, "name": name, "supercategory": "object", "keypoints": list(points), "skeleton": edges}


def image_entry(number: int, file: str, width: int, height: int) -> dict[str, Any]:
    """Return an image."""
    return {"id": number, "file_name": file, "width": width, "height": height}


def object_entry(
    number: int, image: int, xy: NDArray[np.float64], flags: NDArray[np.int8], box: Sequence[float], **more: Any
) -> dict[str, Any]:
    """Return an annotation.

    Args:
        number: Its id.
        image: Id of the image.
        xy: (L, 2), pixels with pixel centres at integers.
        flags: (L,), v: 2 visible, 1 hidden, 0 missing, with x and y 0.
        box: x, y, width, height.
        more: Further fields.
    """
    points = [
        [round(x, 3), round(y, 3), v] if v > 0 else [0, 0, 0]
        for (x, y), v in zip(xy.tolist(), flags.tolist(), strict=True)
    ]
    box = [round(value, 3) for value in box]
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORY,
        "keypoints": [value for point in points for value in point],
        "num_keypoints": int((flags > 0).sum()),
        "bbox": box,
        "area": round(box[2] * box[3], 3),
        "segmentation": [],  # Datumaro asks for it
        "iscrowd": 0,
        **more,
    }


def joined(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the elements of a JSON list, one on each line."""
    for index, entry in enumerate(entries):
        yield (",\n" if index else "\n") + json.dumps(entry, allow_nan=False)
