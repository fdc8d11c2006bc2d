"""What `kplm bench labels` trains and scores on: inputs of the network with annotated points, and means of points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ray_kplm.bench.point_groups import Groups
from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.landmark_arrays import landmark_arrays
from ray_kplm.errors import DataError
from ray_kplm.evaluation.annotation import Scoring, annotated_set
from ray_kplm.evaluation.completion import observed_means
from ray_kplm.imaging import coordinates
from ray_kplm.methods.inputs import read_inputs
from ray_kplm.methods.supervised import AnnotatedInputs
from ray_kplm.schemas import NONE, TEST

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Annotation:
    """The annotation of a split's N images in the frame of the network's inputs, without pixels.

    Attributes:
        xy: (N, L, 2), pixels of the input; NaN where not annotated.
        normaliser: (N,), pixels of the input; NaN where unknown.
        crop_to_input: Of each image.
        rows: (N,) their rows in the split.
    """

    xy: Floats
    normaliser: Floats
    crop_to_input: list[coordinates.Affine]
    rows: NDArray[np.int64]

    def chosen(self, rows: NDArray[np.int64]) -> Annotation:
        """Return some of the images."""
        maps = [self.crop_to_input[row] for row in rows]
        return Annotation(self.xy[rows], self.normaliser[rows], maps, self.rows[rows])


def read_annotation(dataset: Dataset, split: str, side: int) -> Annotation:
    """Return the annotation of those images of a split that have annotated points, test images also a normaliser.

    Raises:
        DataError: The dataset is not annotated, lacks the split, or has no such image in it.
    """
    arrays = landmark_arrays(dataset, split)
    scored = annotated_set(arrays, Scoring(dataset.meta.get("nme") or {"type": "bbox_sqrt"}))
    maps = [coordinates.crop_to_input(int(width), int(height), side) for width, height in arrays.sizes]
    xy = np.array([coordinates.apply(to, points) for to, points in zip(maps, scored.truth, strict=True)])
    every = Annotation(xy, scored.normaliser * side / scored.image_size, maps, np.arange(len(maps)))
    has_points = np.isfinite(xy).all(axis=-1).any(axis=-1)
    usable = np.flatnonzero(has_points & np.isfinite(every.normaliser) if split == TEST else has_points)
    if not len(usable):
        raise DataError(f"{dataset.root}: none of its {len(maps)} {split} images has annotated points to use")
    return every.chosen(usable)


def read_pixels(dataset: Dataset, split: str, annotation: Annotation, config: Config) -> AnnotatedInputs:
    """Return images of a split with their annotation, in its order."""
    order = np.argsort(annotation.rows)
    wanted = annotation.rows[order]
    starts = np.cumsum([0, *dataset.rows(split)])
    images, boxes = [], []
    for part, first, end in zip(dataset.parts(split), starts[:-1], starts[1:], strict=True):
        rows = wanted[(wanted >= first) & (wanted < end)] - first
        for batch in read_inputs(dataset.images(split), part, rows, config) if len(rows) else ():
            images.append(batch.images)
            boxes.append(batch.boxes)
    back = np.argsort(order)
    return AnnotatedInputs(
        np.concatenate(images)[back],
        annotation.xy.astype(np.float32),
        mirror_partners(dataset),
        np.concatenate(boxes)[back],
    )


def mirror_partners(dataset: Dataset) -> NDArray[np.int16]:
    """Return the partner of each annotated point in the mirror image, (L,); NONE if the dataset states no pairs."""
    count, pairs = int(dataset.manifest["landmarks"]), dataset.meta.get("swap_pairs") or []
    if not pairs:
        return np.full(count, NONE, np.int16)
    partners = np.arange(count, dtype=np.int16)
    for a, b in pairs:
        partners[a], partners[b] = b, a
    return partners


def draw(annotation: Annotation, count: int, seed: int) -> NDArray[np.int64]:
    """Return the images that are labelled: of one seed, those of a smaller number are among those of a larger one."""
    return np.random.default_rng(seed).permutation(len(annotation.rows))[:count]


def grouped(xy: Floats, groups: Groups) -> Floats:
    """Return the means of groups of points: (N, L, 2) to (N, G, 2); NaN if a point of the group is."""
    return np.stack([xy[:, list(members)].mean(axis=1) for members in groups.values()], axis=1)


def group_partners(groups: Groups, partners: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the partner of each group in the mirror image, (G,): the group of its points' partners, or NONE for all."""
    sets = [frozenset(members) for members in groups.values()]
    turned = [frozenset(int(partners[point]) for point in members) for members in sets]
    if not all(one in sets for one in turned):
        return np.full(len(sets), NONE, np.int16)
    return np.array([sets.index(one) for one in turned], np.int16)


def in_groups(annotation: Annotation, groups: Groups | None) -> Annotation:
    """Return the annotation of the means of groups of points; of the points themselves without groups."""
    return annotation if groups is None else replace(annotation, xy=grouped(annotation.xy, groups))


def nme(predicted: Floats, truth: Annotation) -> float:
    """Return the NME in percent, as `kplm evaluate` averages it: over images, then over points."""
    errors = 100 * np.linalg.norm(predicted - truth.xy, axis=-1) / truth.normaliser[:, None]
    return float(observed_means(observed_means(errors)))
