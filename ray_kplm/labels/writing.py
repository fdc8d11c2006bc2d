"""Annotated points written as COCO keypoints, which `read_labels` reads again to a thousandth of a pixel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ray_kplm.labels.coco_entries import category_entry, image_entry, joined, object_entry
from ray_kplm.labels.labels import Labels
from ray_kplm.storage import Folder


def write_coco(
    labels: Labels, sizes: Mapping[str, tuple[int, int]], target: Folder, name: str, category: str = "object"
) -> None:
    """Write a COCO file, atomically: v is 2 where a point is visible, 1 where it is hidden, 0 where it is not annotated.

    Images below the folder of the file are named by their paths below it, and others as `labels` names them. An object without
    a box has that of its points.

    Args:
        labels: The points.
        sizes: Width and height of each of `labels.images`.
        target: Folder of the file.
        name: Of the file.
        category: Name of the category.
    """
    with target.writing(name) as stream:
        for piece in to_coco(labels, sizes, f"{target.path}/", category):
            stream.write(piece.encode())


def to_coco(labels: Labels, sizes: Mapping[str, tuple[int, int]], root: str, category: str) -> Iterator[str]:
    """Yield the file in pieces; `root` is what is left out before the names of images. See `write_coco`."""
    numbers = {image: number for number, image in enumerate(dict.fromkeys(labels.images), start=1)}
    yield '{"info": {"contributor": "ray_kplm"},\n"licenses": [],\n"categories": '
    yield f'{json.dumps([category_entry(category, labels.names, labels.skeleton)])},\n"images": ['
    yield from joined(image_entry(number, uri.removeprefix(root), *sizes[uri]) for uri, number in numbers.items())
    yield '],\n"annotations": ['
    yield from joined(
        object_entry(row + 1, numbers[image], labels.xy[row], _flags(labels, row), _box(labels, row))
        for row, image in enumerate(labels.images)
    )
    yield "]}\n"


def _flags(labels: Labels, row: int) -> NDArray[np.int8]:
    is_there = np.isfinite(labels.xy[row]).all(axis=1)
    return np.where(is_there, np.where(labels.visible[row], 2, 1), 0).astype(np.int8)


def _box(labels: Labels, row: int) -> tuple[float, ...]:
    x0, y0, x1, y1 = labels.boxes[row]
    if not np.isfinite(labels.boxes[row]).all():
        points = labels.xy[row][np.isfinite(labels.xy[row]).all(axis=1)]
        (x0, y0), (x1, y1) = (points.min(axis=0), points.max(axis=0)) if len(points) else ((0.0, 0.0), (0.0, 0.0))
    return float(x0), float(y0), float(x1 - x0), float(y1 - y0)
