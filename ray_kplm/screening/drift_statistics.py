"""The statistics of an image that drift is looked for in: of its picture, of where the object is, and of the detector."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.screening.image_statistics import STATISTICS
from ray_kplm.screening.layouts import cross_fitted, size_of

Floats = NDArray[np.float64]

IMAGE, OBJECT, DETECTOR = "image", "object", "detector"
"""Families of statistics: of the picture, of where the object is in it, and of how well the detector works."""


class Statistic(NamedTuple):
    """A number of each image.

    Attributes:
        name: In JSON.
        title: For people.
        family: IMAGE, OBJECT or DETECTOR.
        worse: 1 if only more of it counts as drift, -1 if only less does, 0 if both do.
        unit: Of what is shown.
        is_log: Whether the number is a logarithm of what is shown.
    """

    name: str
    title: str
    family: str
    worse: int = 0
    unit: str = ""
    is_log: bool = False


DRIFT_STATISTICS = (
    Statistic("brightness", "brightness", IMAGE),
    Statistic("contrast", "contrast", IMAGE),
    Statistic("saturation", "saturation", IMAGE),
    Statistic("warmth", "warmth, red less blue", IMAGE),
    Statistic("sharpness", "sharpness, log", IMAGE),
    Statistic("noise", "noise", IMAGE),
    Statistic("clipped", "black or white pixels", IMAGE),
    Statistic("aspect", "width over height", IMAGE, is_log=True),
    Statistic("megapixels", "resolution", IMAGE, unit="megapixels", is_log=True),
    Statistic("border_energy", "detail at the border", IMAGE),
    Statistic("object_size", "size of the object", OBJECT, 0, "of the side"),
    Statistic("off_centre", "distance of the object from its usual place", OBJECT, 0, "of the side"),
    Statistic("turn", "turn of the object", OBJECT, 0, "degrees"),
    Statistic("peaks", "height of the peaks", DETECTOR, -1),
    Statistic("weakest_peaks", "height of the weakest peaks", DETECTOR, -1),
    Statistic("peak_sharpness", "sharpness of the peaks", DETECTOR, -1),
    Statistic("motion_error", "error on a turned and scaled copy", DETECTOR, 1, "of the object's size"),
    Statistic("mirror_error", "error on the mirror image", DETECTOR, 1, "of the object's size"),
    Statistic("layout_distance", "distance of the layout from those of training", DETECTOR, 1),
    Statistic("probability", "probability of the landmarks", DETECTOR, -1),
    Statistic("found", "landmarks found", DETECTOR, -1, "of all"),
    Statistic("separation", "descriptors, nearer to their cluster than to others", DETECTOR, -1),
    Statistic("clusters_found", "clusters with a keypoint", DETECTOR, -1, "of all"),
    Statistic("facing", "confidence in which way it faces", DETECTOR, -1),
)
NAMES = tuple(one.name for one in DRIFT_STATISTICS)
assert set(STATISTICS) == {one.name for one in DRIFT_STATISTICS if one.family == IMAGE}
_WEAK = 0.2
"""Share of an image's landmarks that are its weakest."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of N images; NaN where the detector does not give it.

    Attributes:
        side: Of the network's input, pixels.
        picture: (N, len(STATISTICS)), see `image_statistics`.
        xy: (N, K, 2), landmarks, input frame.
        confidence: (N, K), heights of the heatmaps' peaks.
        sharpness: (N, K), of the peaks.
        probability: (N, K), of being found.
        motion_error: (N,), see `DRIFT_STATISTICS`.
        mirror_error: (N,).
        separation: (N,).
        clusters_found: (N,).
        facing: (N,), the sign says which way the object faces.
        group: (N,), number of the group or video of each image; NONE for an image of none.
    """

    side: int
    picture: Floats
    xy: Floats
    confidence: Floats
    sharpness: Floats
    probability: Floats
    motion_error: Floats
    mirror_error: Floats
    separation: Floats
    clusters_found: Floats
    facing: Floats
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.xy)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Measured:
        """Return some of the images."""
        names = [one.name for one in fields(self) if one.name != "side"]
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def group_numbers(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return groups (N,) numbered from 0, those of images without a group among them: each is one of its own."""
    alone = group < 0
    apart = np.where(alone, group.max(initial=-1) + 1 + np.arange(len(group)), group)
    return np.unique(apart, return_inverse=True)[1].astype(np.int64)


def statistics(reference: Measured, new: Measured) -> tuple[Floats, Floats]:
    """Return the `DRIFT_STATISTICS` of the reference and of new images: (n, D) and (m, D), NaN where they are not known."""
    own, other = _facing_one_way(reference), _facing_one_way(new)
    models, distance = cross_fitted(own, group_numbers(reference.group))
    distances = (distance, np.mean([model.distance(other) for model in models], axis=0))
    turns = [np.mean([np.abs(model.turn(xy)) for model in models], axis=0) for xy in (own, other)]
    place = np.median(own.mean(axis=1), axis=0)
    first, second = (
        _table(measured, xy, place, layout, turn)
        for measured, xy, layout, turn in zip((reference, new), (own, other), distances, turns, strict=True)
    )
    return first, second


def _table(seen: Measured, xy: Floats, place: Floats, layout: Floats, turn: Floats) -> Floats:
    weak = max(1, round(_WEAK * seen.confidence.shape[1]))
    probability = seen.probability.mean(axis=1)
    columns = {
        **dict(zip(STATISTICS, seen.picture.T, strict=True)),
        "object_size": size_of(xy) / seen.side,
        "off_centre": np.linalg.norm(xy.mean(axis=1) - place, axis=1) / seen.side,
        "turn": turn,
        "peaks": seen.confidence.mean(axis=1),
        "weakest_peaks": np.sort(seen.confidence, axis=1)[:, :weak].mean(axis=1),
        "peak_sharpness": seen.sharpness.mean(axis=1),
        "motion_error": seen.motion_error,
        "mirror_error": seen.mirror_error,
        "layout_distance": layout,
        "probability": probability,
        "found": np.where(np.isnan(probability), math.nan, (seen.probability >= 0.5).mean(axis=1)),
        "separation": seen.separation,
        "clusters_found": seen.clusters_found,
        "facing": np.abs(seen.facing),
    }
    return np.stack([columns[name] for name in NAMES], axis=1)


def _facing_one_way(seen: Measured) -> Floats:
    """Return the landmarks (N, K, 2) of images whose objects all face one way."""
    away = (seen.facing < 0)[:, None]
    return np.stack([np.where(away, seen.side - 1 - seen.xy[..., 0], seen.xy[..., 0]), seen.xy[..., 1]], axis=2)
