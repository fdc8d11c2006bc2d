"""COCO keypoints: images, annotations and categories of one JSON (cocodataset.org/#format-data)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ray_kplm.datasets.readers.coco_rows import (
    Categories,
    ImageRow,
    RowError,
    named,
    read_box,
    read_categories,
    read_image,
    read_keypoints,
    row_id,
    rows_of,
    show,
)
from ray_kplm.errors import DataError
from ray_kplm.labels.annotation_file import AnnotatedObject, AnnotationFile

FIELDS = ("images", "annotations", "categories")


def read(content: dict[str, Any], where: str) -> AnnotationFile:
    """Return the annotated objects of a JSON, pixels with pixel centres at integers. v is 0 missing, 1 hidden, 2 visible.

    Crowds, objects without a labelled keypoint and those of categories without keypoints are left out.

    Args:
        content: The JSON.
        where: The file, for messages.

    Raises:
        DataError: Its categories do not have one list of keypoints, or it is no COCO file.
    """
    categories, faults = read_categories(rows_of(content, "categories", where), where)
    if len(set(categories.names)) < len(categories.names):
        twice = next(name for name, count in Counter(categories.names).items() if count > 1)
        raise DataError(f"{where}: two keypoints are named {twice}; give each its own name")
    file = AnnotationFile(categories.names, skeleton=_skeleton(content, categories), rejected=faults)
    images = _images(rows_of(content, "images", where), file)
    left_out: Counter[str] = Counter()
    for number, row in enumerate(rows_of(content, "annotations", where)):
        name = named(row, number, "annotations")
        try:
            found = _object(row, categories, images)
        except RowError as error:
            file.rejected.append((name, str(error)))
            continue
        if isinstance(found, str):
            left_out[found] += 1
        else:
            file.objects.append(found)
    if left_out:
        counts = ", ".join(f"{count} {what}" for what, count in left_out.items())
        file.notes.append(f"objects left out: {counts}")
    return file


def _images(rows: list[Any], file: AnnotationFile) -> dict[str, ImageRow]:
    images: dict[str, ImageRow] = {}
    for number, row in enumerate(rows):
        try:
            image = read_image(row)
            if images.setdefault(image.id, image) != image:
                raise RowError(f"its id is that of two pictures, one of which is {images[image.id].file_name}")
        except RowError as error:
            file.rejected.append((named(row, number, "images"), str(error)))
    return images


def _object(row: Any, categories: Categories, images: dict[str, ImageRow]) -> AnnotatedObject | str:
    """Return an annotated object, or the kind of what is left out; raise RowError for what cannot be used."""
    if not isinstance(row, dict):
        raise RowError(f"it is no object but {show(row)}")
    category = row_id(row.get("category_id"))
    if row.get("iscrowd"):
        return "crowds"
    if category not in categories.known:
        raise RowError(f"category_id is {show(row.get('category_id'))}, which categories lack")
    if category not in categories.with_keypoints:
        return "of categories without keypoints"
    points = read_keypoints(row, len(categories.names))
    if points is None:
        return "without a labelled keypoint"
    image = images.get(row_id(row.get("image_id")) or "")
    if image is None:
        raise RowError(f"images has no id {show(row.get('image_id'))}, which is its image_id")
    xy, visible = points
    box = read_box(row) or (np.nan,) * 4
    return AnnotatedObject(image.file_name, xy, np.array(visible), box, image.size)


def _skeleton(content: dict[str, Any], categories: Categories) -> tuple[tuple[int, int], ...]:
    """Return the skeleton of the category that has keypoints. COCO counts from 1; a file with a 0 counts from 0."""
    for row in content["categories"]:
        if not isinstance(row, dict) or row_id(row.get("id")) not in categories.with_keypoints:
            continue
        edges = row.get("skeleton")
        if not isinstance(edges, list) or not all(_is_edge(edge) for edge in edges):
            continue
        first = 0 if any(0 in edge for edge in edges) else 1
        pairs = [(int(a) - first, int(b) - first) for a, b in edges]
        return tuple((a, b) for a, b in pairs if a != b and {a, b} <= set(range(len(categories.names))))
    return ()


def _is_edge(edge: Any) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and all(type(end) is int for end in edge)
