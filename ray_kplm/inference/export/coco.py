"""Predicted landmarks as COCO keypoints, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ray_kplm.inference.export.predictions import Object, Picture, Predictions
from ray_kplm.inference.export.written_files import write_text
from ray_kplm.labels.coco_entries import category_entry, image_entry, joined, object_entry
from ray_kplm.storage import Folder

FILE = "coco.json"


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `coco.json`."""
    write_text(target, FILE, to_coco(found))
    return []


def to_coco(found: Predictions) -> Iterator[str]:
    """Yield a COCO keypoints file in pieces: an image for each source picture, an annotation for each object in it.

    `keypoints` are x, y, v in source pixels with pixel centres at integers; v is 2 where the landmark is found, 1 where it is
    inferred, and 0 where it is absent or beyond the picture, with x and y 0. `score` is the mean confidence, `confidence` and
    `probability` are those of each landmark (null: not known), `bbox` is the bounding box of the points that have v > 0. Every
    image has its width and height.
    """
    category = category_entry(found.layout.category, found.layout.names, found.layout.skeleton)
    yield f'{{"info": {json.dumps(_info(found))},\n"licenses": [],\n'
    yield f'"categories": {json.dumps([category])},\n"images": ['
    yield from joined(map(_image, found.pictures()))
    yield '],\n"annotations": ['
    objects = ((picture, one) for picture in found.pictures() for one in picture.objects)
    yield from joined(
        _annotation(number, picture, one, is_whole=found.are_whole)
        for number, (picture, one) in enumerate(objects, start=1)
    )
    yield "]}\n"


def _info(found: Predictions) -> dict[str, Any]:
    """Return the description, which is the same whenever the same predictions are exported."""
    info: dict[str, Any] = {
        "description": f"Landmarks of {found.layout.category}, predicted",
        "version": found.detector,
        "contributor": "ray_kplm",
        "software_version": found.version,
        "min_probability": found.min_probability,
    }
    return info if found.date is None else {**info, "year": int(found.date[:4]), "date_created": found.date}


def _image(picture: Picture) -> dict[str, Any]:
    image = image_entry(picture.number, picture.file, picture.width, picture.height)
    return image if picture.sequence is None else {**image, "video": picture.sequence, "frame_id": picture.frame}


def _annotation(number: int, picture: Picture, given: Object, *, is_whole: bool) -> dict[str, Any]:
    one = given.inside(picture.width, picture.height)
    one = replace(one, xy=np.clip(one.xy, 0, None))  # for tools that take no negative coordinate
    box = (0.0, 0.0, float(picture.width), float(picture.height)) if is_whole else one.extent()
    return object_entry(
        number, picture.number, one.xy, one.flags, box,
        score=round(one.score, 5),
        confidence=[round(value, 5) for value in one.confidence.tolist()],
        probability=None if one.probability is None else [round(value, 5) for value in one.probability.tolist()],
    )  # fmt: skip
