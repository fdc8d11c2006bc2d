"""What to train on a dataset with: numbers of landmarks and clusters, the side of the network's input, and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.analysis.training_time import time_training
from ray_kplm.config import Config
from ray_kplm.correspondence.stability import (
    Evidence,
    candidates,
    choose_clusters,
    choose_landmarks,
    measure_split,
    principal_components,
)
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.keypoints.opencv import OpenCVDetector
from ray_kplm.keypoints.patches import describe_patches
from ray_kplm.progress import ProgressCallback
from ray_kplm.schemas import TRAIN

_IMAGES, _SPLITS, _MOST = 200, 4, 30
"""Images, splits and the largest K of the comparison: a third of what `kplm choose` looks at."""
_CHOICE = 67
"""Of the seed of these images."""
_TIMED = 32
"""Images that training steps are timed on."""
_SIDES = (64, 96, 128, 192, 256)
"""Sides of the network's input, pixels."""
_LEAST_SIDE, _MOST_ON_CPUS = 96, 128
"""A smaller input has too few cells for some tens of landmarks; a larger one takes four times as long without a GPU."""


def suggest(
    dataset: Dataset,
    config: Config,
    sample: Selection,
    object_side: float,
    detail: float,
    timed: bool,
    progress: ProgressCallback,
) -> dict[str, Any]:
    """Return what to train with.

    Args:
        dataset: The dataset.
        config: What the run is otherwise configured as.
        sample: Of its training images.
        object_side: The object's longer side, share of the image's; NaN if it is not known.
        detail: Side that holds the detail of an image, pixels.
        timed: Whether to time training steps.
        progress: Called as the work goes on.

    Returns:
        landmarks, clusters, image_size; range (of K, over other splits) and doubts about it; points_per_image; and hours with
        its parts, see `TrainingTime`, None where it was not timed.
    """
    few = sample.sample(_IMAGES, (config.seed, _CHOICE))
    pictures, boxes = _read(dataset, few)
    progress(0.1, "generic keypoints")
    descriptors, counts = _describe(pictures, boxes, config.keypoints.limit)
    per_image = float(counts.mean())
    numbers: dict[str, Any] = {"points_per_image": per_image, "landmarks": None, "clusters": None, "doubts": []}
    if per_image >= 2 and len(counts) >= 8:
        numbers |= _numbers(descriptors, counts, dataset.count(TRAIN), config.seed, progress)
    else:
        numbers["doubts"] = ["too few generic keypoints to compare numbers of landmarks"]
    numbers["image_size"] = image_size(config, detail, max(picture.shape[0] for picture in pictures))
    numbers["training"] = None
    if timed and numbers["landmarks"] and config.method.kind != "template":
        progress(0.6, "timing training steps")
        chosen = replace(
            config,
            method=replace(config.method, landmarks=numbers["landmarks"], clusters=numbers["clusters"]),
            network=replace(config.network, image_size=numbers["image_size"]),
        )
        trained = time_training(chosen, pictures[:_TIMED], boxes[:_TIMED], dataset.count(TRAIN))
        numbers["training"] = trained.figures()
    return numbers


def image_size(config: Config, detail: float, stored: int) -> int:
    """Return the side of the network's input, pixels: as the detail asks, but no larger than stored images or than CPUs take.

    Args:
        config: Its network allows some sides only.
        detail: Side that holds the detail of an image.
        stored: Longer side of the stored images.
    """
    step = 4 * 2**config.network.depth
    allowed = [side for side in _SIDES if side % step == 0 and side >= 2 * step] or [config.network.image_size]
    most = max(_LEAST_SIDE, stored if torch.cuda.is_available() else min(stored, _MOST_ON_CPUS))
    wanted = min(max(_LEAST_SIDE, detail), most)
    return next((side for side in allowed if side >= wanted), allowed[-1])


def _read(dataset: Dataset, selection: Selection) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float64] | None]]:
    pictures: list[NDArray[np.uint8]] = []
    boxes: list[NDArray[np.float64] | None] = []
    for part, rows in zip(selection.parts, selection.rows, strict=True):
        table = dataset.images(TRAIN).read_table(part, ["image", "box"]).take(rows)
        pictures += [decode_crop(one) for one in table["image"]]
        boxes += [None if box is None else np.array(box, np.float64) for box in table["box"].to_pylist()]
    return pictures, boxes


def _describe(
    pictures: Sequence[NDArray[np.uint8]], boxes: Sequence[NDArray[np.float64] | None], limit: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the descriptors of the generic keypoints of all images, (N, d), and how many each has."""
    detector, pieces = OpenCVDetector("sift", limit), []
    for picture, box in zip(pictures, boxes, strict=True):
        height, width = picture.shape[:2]
        side = max(height, width) if box is None else max(box[2] - box[0], box[3] - box[1])
        pieces.append(describe_patches(picture, detector(picture, box).xy, side))
    return np.concatenate(pieces), np.array([len(piece) for piece in pieces], np.int64)


def _numbers(
    descriptors: NDArray[np.float32], counts: NDArray[np.int64], train: int, seed: int, progress: ProgressCallback
) -> dict[str, Any]:
    """Return K and M with the range of K and doubts, by fewer images and splits than `kplm choose`."""
    points = principal_components(descriptors)
    image = np.repeat(np.arange(len(counts)), counts)
    per_image = float(counts.mean())
    compared, splits = candidates(per_image, _MOST), []
    for number in range(_SPLITS):
        splits.append(measure_split(points, image, compared, seed * _SPLITS + number))
        progress(0.15 + 0.45 * (number + 1) / _SPLITS, f"{number + 1}/{_SPLITS} splits of the images clustered")
    choice = choose_landmarks(Evidence.of_splits(compared, splits), seed)
    return {
        "landmarks": choice.landmarks,
        "clusters": choose_clusters(choice.landmarks, train, per_image),
        "range": [choice.low, choice.high],
        "doubts": list(choice.doubts),
    }
