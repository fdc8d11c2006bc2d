"""Labelled images as a detector sees them: landmarks and labels in one frame, and which images show nearly the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.image_io import read_image_bytes, upright_size
from ray_kplm.datasets.source_files import map_paths
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.labels.labels import Labels
from ray_kplm.landmark_detector import LandmarkDetector, Prepared
from ray_kplm.points.regressor import Floats
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.storage import Folder

_THUMBNAIL = 16
"""Side, pixels, of the images that are compared."""
_NEARLY_SAME = 0.95
"""Correlation of thumbnails above which images are nearly the same. Of 1.2 million pairs of faces of different people none is
above 0.93; of frames of one person 4 % are."""
_VIDEO_FOLDER = "labeled-data"
"""DeepLabCut's folder of the folders of videos."""
_LEAST_VIDEOS = 5


@dataclass(frozen=True, eq=False)
class LabelledViews:
    """N labelled objects in the network's input. Coordinates are shares of its side.

    Attributes:
        rows: (N,), of the `Labels`.
        xy: (N, K, 2), landmarks.
        probability: (N, K), of the landmarks; NaN if the detector has no `VisibilityModel`.
        targets: (N, L, 2), labels, NaN where there is none.
        pixels: (N,), source pixels that the side of the input covers.
        groups: (N,), equal for objects of one image, of images that are nearly the same, and of frames of one video.
        is_turned: (N,), whether the view is the mirror image, as the object faces the other way.
        views: Some of the views, (S, S, 3), of the first objects.
        rejected: Images that cannot be used, with the reason.
    """

    rows: NDArray[np.int64]
    xy: Floats
    probability: NDArray[np.float32]
    targets: Floats
    pixels: Floats
    groups: NDArray[np.int64]
    is_turned: NDArray[np.bool_]
    views: list[NDArray[np.uint8]]
    rejected: list[tuple[str, str]]


def see_labels(
    detector: LandmarkDetector,
    labels: Labels,
    *,
    boxes: bool,
    margin: float,
    pictures: int = 24,
    progress: ProgressCallback = ignore_progress,
) -> LabelledViews:
    """Find the landmarks of labelled images.

    Args:
        detector: Of the landmarks.
        labels: Of images.
        boxes: Whether to crop each object by its box, where it has one.
        margin: Margin around a box, as a share of its longer side.
        pictures: How many views are kept.
        progress: Called after each batch.

    Raises:
        DataError: No image can be used; the error names the first.
    """
    rejected: list[tuple[str, str]] = []
    rows, xy, probability, targets, pixels, turned, thumbnails = [], [], [], [], [], [], []
    views: list[NDArray[np.uint8]] = []
    for batch in _batches(detector, labels, boxes, margin, rejected):
        for prepared, seen in zip(batch, detector.see(batch), strict=True):
            side = len(seen.view)
            from_source = coordinates.invert(seen.to_source)
            rows.append(prepared.number)
            xy.append(seen.xy / side)
            probability.append(seen.probability)
            targets.append(coordinates.apply(from_source, labels.xy[prepared.number]) / side)
            pixels.append(side * np.sqrt(abs(np.linalg.det(seen.to_source[:, :2]))))
            turned.append(seen.is_turned)
            thumbnails.append(_thumbnail(prepared.view))
            views += [seen.view] if len(views) < pictures else []
        progress(
            (len(rows) + len(rejected)) / len(labels), f"landmarks of {len(rows)} of {len(labels)} labelled objects"
        )
    if not rows:
        name, reason = rejected[0]
        raise DataError(f"none of {len(labels)} labelled images can be used, e.g. {name}: {reason}")
    images = [labels.images[row] for row in rows]
    return LabelledViews(
        np.array(rows), np.stack(xy).astype(np.float64), np.stack(probability), np.stack(targets), np.array(pixels),
        _groups(images, np.stack(thumbnails)), np.array(turned), views, rejected,
    )  # fmt: skip


def _batches(
    detector: LandmarkDetector, labels: Labels, boxes: bool, margin: float, rejected: list[tuple[str, str]]
) -> Iterator[list[Prepared]]:
    """Yield batches of labelled images; those that cannot be used are added to `rejected`."""
    batch: list[Prepared] = []
    for row, image in enumerate(labels.images):
        box = labels.boxes[row] if boxes and np.isfinite(labels.boxes[row]).all() else None
        try:
            batch.append(detector.prepare(image, box, margin)._replace(number=row))
        except DataError as error:
            rejected.append((image, str(error)))
        if len(batch) == detector.batch:
            yield batch
            batch = []
    if batch:
        yield batch


def _thumbnail(view: NDArray[np.uint8]) -> Floats:
    """Return the grey values of a small copy, of mean 0 and norm 1."""
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-9), np.float64)


def _groups(images: list[str], thumbnails: Floats) -> NDArray[np.int64]:
    """Return the group of each object, numbered from 0."""
    group = np.arange(len(images))
    names = [_video(image) for image in images]
    kept_together = [images] if len({*names} - {""}) < _LEAST_VIDEOS else [images, names]
    for keys in kept_together:
        first: dict[str, int] = {}
        for row, key in enumerate(keys):
            if key:
                _join(group, row, first.setdefault(key, row))
    for row in range(1, len(images)):
        for other in np.flatnonzero(thumbnails[:row] @ thumbnails[row] > _NEARLY_SAME).tolist():
            _join(group, row, other)
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def _video(image: str) -> str:
    """Return the folder of the video that an image is a frame of, as DeepLabCut stores them; empty for other images."""
    folder = os.path.dirname(image)
    return folder if os.path.basename(os.path.dirname(folder)) == _VIDEO_FOLDER else ""


def _join(group: NDArray[np.int64], a: int, b: int) -> None:
    group[group == group[a]] = group[b]


def image_sizes(labels: Labels) -> dict[str, tuple[int, int]]:
    """Return width and height of the upright images of labels, in pixels, without those that cannot be read."""

    def size(image: str) -> tuple[int, int] | None:
        at = Folder.at(image)
        try:
            return upright_size(read_image_bytes(at.parent, at.name))
        except DataError:
            return None

    images = list(dict.fromkeys(labels.images))
    return {image: found for image, found in zip(images, map_paths(size, images), strict=True) if found is not None}
