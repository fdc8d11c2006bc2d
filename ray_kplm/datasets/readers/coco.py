"""COCO keypoints: any data set in COCO's keypoint format (cocodataset.org/#format-data).

    annotations/person_keypoints_train2017.json, annotations/person_keypoints_val2017.json
    train2017/000000000139.jpg ..., val2017/...

or any annotations/*.json whose names contain train and val (or test); a single file is split by image. A JSON holds images (id,
file_name), annotations (image_id, category_id, keypoints: x y v each, bbox: x y width height, iscrowd, num_keypoints), and
categories (id, keypoints: names). Each annotated object is a crop. Crowds and objects without a labelled keypoint are
left out. v is 0 not labelled (NaN), 1 hidden, 2 visible.

Pictures are in the folder of the last word of the JSON's name (train2017), in that folder below images/, or in images/.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from typing import Any

import numpy as np

from ray_kplm.datasets.dataset import IngestOptions, Listing, split_of
from ray_kplm.datasets.ingest_source import Box, Sample
from ray_kplm.datasets.readers.layout import BOX_SIZE, Distribution, Layout
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

COCO = Distribution("COCO", "https://cocodataset.org/#download", "annotations CC BY 4.0; pictures under Flickr's terms")


def list_coco(source: Folder, options: IngestOptions) -> Listing:
    """List a data set in COCO's keypoint format."""
    layout = Layout(source, COCO, options)
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    names: list[str] | None = None
    for file, split in _files(layout).items():
        content = layout.json(file)
        if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
            raise DataError(f"{source}/{file} is no COCO annotation: it needs images, annotations and categories")
        keypoints = _names(content, f"{source}/{file}")
        if names not in (None, keypoints):
            raise DataError(
                f"{source}/{file}: its keypoints differ from those of the other files; ingest them one by one"
            )
        names = keypoints
        folder = _folder(layout, file)
        layout.files(folder)
        for sample in _samples(layout, content, folder, len(names)):
            splits[split or split_of(sample.path, options)].append(sample)
    assert names is not None
    return layout.listing(splits, names, BOX_SIZE)


def _files(layout: Layout) -> dict[str, str | None]:
    """Return the annotation files and the split of each; None: the split is drawn by image."""
    folder = layout.locate("annotations")
    every = layout.files(folder, (".json",))
    paths = [path for path in every if "person_keypoints" in path] or every
    given: dict[str, str | None] = {}
    for path in paths:
        name = posixpath.basename(path)
        given[path] = TRAIN if "train" in name else TEST if re.search("val|test", name) else None
    if not given:
        layout.locate("annotations/person_keypoints_train2017.json")
    if len(given) > 1 and None in given.values():
        odd = next(path for path, split in given.items() if split is None)
        raise DataError(f"{layout.source}/{odd}: of several files each name must say train, val or test; rename it")
    return {path: None for path in given} if len(given) == 1 else given


def _names(content: dict[str, Any], file: str) -> list[str]:
    """Return the keypoint names, which must be the same in all categories that have keypoints."""
    lists = {tuple(category["keypoints"]) for category in content["categories"] if category.get("keypoints")}
    if len(lists) != 1:
        raise DataError(
            f"{file}: {len(lists)} lists of keypoints in its categories; all that have keypoints must have the same"
        )
    return list(lists.pop())


def _folder(layout: Layout, file: str) -> str:
    """Return the folder of the pictures of an annotation file."""
    suffix = posixpath.splitext(posixpath.basename(file))[0].rpartition("_")[2]
    return layout.locate(suffix, f"images/{suffix}", "images")


def _samples(layout: Layout, content: dict[str, Any], folder: str, count: int) -> list[Sample]:
    """Return the annotated objects of a file, each with `count` keypoints."""
    files = {image["id"]: f"{folder}/{image['file_name']}" for image in content["images"]}
    with_keypoints = {category["id"] for category in content["categories"] if category.get("keypoints")}
    samples: list[Sample] = []
    objects: Counter[str] = Counter()
    for row in content["annotations"]:
        if (
            row.get("iscrowd")
            or row.get("category_id") not in with_keypoints
            or not any(row.get("keypoints", ())[2::3])
        ):
            continue
        path = files.get(row.get("image_id"))
        if path is None:
            layout.reject(f"annotation {row.get('id')}", "missing: no such image in the file")
            continue
        image_id = f"{path}#{objects[path]}"
        objects[path] += 1
        try:
            annotation = {**_annotation(row, count), "group": path}
            samples.append(Sample(image_id, path, _box(row), annotation=annotation))
        except (ValueError, TypeError) as error:
            layout.reject(image_id, str(error) if isinstance(error, DataError) else f"bad annotation: {error}")
    return samples


def _annotation(row: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the landmarks (count, 2) and the visibility of an object."""
    values = np.asarray(row["keypoints"], dtype=np.float64)
    if values.size != 3 * count:
        raise DataError(f"bad annotation: {values.size} numbers for {count} keypoints x, y, v")
    xy, state = values.reshape(count, 3)[:, :2].copy(), values[2::3]
    xy[state == 0] = np.nan
    return {"landmarks": xy, "visible": (state == 2).tolist()}


def _box(row: dict[str, Any]) -> Box:
    """Return the box of an object, or raise DataError if it has none."""
    if len(row.get("bbox") or ()) != 4:
        raise DataError("no box")
    x, y, width, height = map(float, row["bbox"])
    return x, y, x + width, y + height
