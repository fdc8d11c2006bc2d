"""DeepFashion: pictures of clothes on people with eight fashion landmarks (Liu et al. 2016).

The layout of the authors' In-shop Clothes Retrieval Benchmark (its README, version 1.2):

    Img/img/WOMEN/Dresses/id_00000002/02_4_full.jpg ...
    Anno/list_landmarks_inshop.txt    a count, column names, then: image, clothes type, variation, and for each landmark
                                      visibility (0 visible, 1 hidden, 2 cut off), x, y
    Anno/list_bbox_inshop.txt         a count, column names, then: image, clothes type, pose type, x0 y0 x1 y1

Upper-body clothes (type 1) have no waistline, lower-body clothes (2) neither collar nor sleeves; these are NaN, like landmarks
that are cut off.

Which images (thesis 2.7: "we infer 14 human pose landmarks using [18] and select only the subset of images depicting a full
human body ... 12,416 images, with 500 images being kept for testing"): those poses are not distributed. Read here are
images of pose type 4, the zoom-out view ("full" in the names), which is the closest annotation that the authors distribute; the
counts differ from the thesis'. Test: 500 images, or `test_share` of all if that is less, whole items drawn by the seed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Sample
from ray_kplm.datasets.readers.layout import BOX_SIZE, Distribution, Layout, parse_numbers
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

DEEPFASHION = Distribution(
    "DeepFashion's In-shop Clothes Retrieval Benchmark",
    "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html",
    "on request, non-commercial research and education only",
)
LANDMARKS = tuple(f"{side}_{part}" for part in ("collar", "sleeve", "waistline", "hem") for side in ("left", "right"))
OF_TYPE = {"1": (0, 1, 2, 3, 6, 7), "2": (4, 5, 6, 7), "3": tuple(range(8))}
"""Landmarks of each type of clothes, in the order of the list."""
FULL_BODY = "4"
TEST_IMAGES = 500

_VISIBLE, _CUT_OFF = "0", "2"


def list_deepfashion(source: Folder, options: IngestOptions) -> Listing:
    """List DeepFashion's full-body images."""
    layout = Layout(source, DEEPFASHION, options)
    images = layout.locate("Img/img", "img")
    prefix = images.removesuffix("img")
    annotated = layout.table(layout.locate("Anno/list_landmarks_inshop.txt", "list_landmarks_inshop.txt"), skip=2)
    boxes = layout.table(layout.locate("Anno/list_bbox_inshop.txt", "list_bbox_inshop.txt"), skip=2, least=7)
    layout.files(images)
    layout.match("landmarks", len(annotated.keys() & boxes.keys()), len(boxes))
    samples = []
    for image, (_, pose, *box) in boxes.items():
        if pose != FULL_BODY:
            continue
        try:
            if image not in annotated:
                raise DataError("no landmarks")
            x0, y0, x1, y1 = parse_numbers(box[:4])
            annotation = {**_annotation(image, annotated[image]), "group": _item(image)}
        except DataError as error:
            layout.reject(image, str(error))
            continue
        samples.append(Sample(image, prefix + image, (x0, y0, x1, y1), annotation=annotation))
    return layout.listing(_split(samples, options), LANDMARKS, BOX_SIZE)


def _item(image: str) -> str:
    """Return the article of an image, such as `WOMEN/Dresses/id_00000002`."""
    return image.rpartition("/")[0].removeprefix("img/")


def _annotation(image: str, words: list[str]) -> dict[str, Any]:
    """Return the landmarks (8, 2) and their visibility of one line of the list."""
    kind, *values = words
    values = values[1:]  # without the variation
    places = OF_TYPE.get(kind, ())
    if not places or len(values) < 3 * len(places):
        raise DataError(f"bad annotation: {image} of clothes type {kind} has {len(values)} values")
    xy = np.full((len(LANDMARKS), 2), np.nan)
    visible = [False] * len(LANDMARKS)
    for number, place in enumerate(places):
        state, x, y = values[3 * number : 3 * number + 3]
        visible[place] = state == _VISIBLE
        if state != _CUT_OFF:
            xy[place] = parse_numbers((x, y))
    return {"landmarks": xy, "visible": visible}


def _split(samples: list[Sample], options: IngestOptions) -> dict[str, list[Sample]]:
    """Draw the test split; all images of an article are in one split."""
    items: dict[str, list[Sample]] = {}
    for sample in samples:
        items.setdefault(_item(sample.image_id), []).append(sample)
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    wanted = min(TEST_IMAGES, round(options.test_share * len(samples)))
    for item in sorted(items, key=lambda item: hashlib.sha256(f"{options.seed}:{item}".encode()).digest()):
        splits[TEST if len(splits[TEST]) < wanted else TRAIN] += items[item]
    return splits
