"""How far landmarks rely on layout: whether they follow an object that is moved, or put on another background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.canonical_frame import fit_to_images, mean_shape, to_canonical
from ray_kplm.evaluation.json_numbers import json_number, json_numbers

Floats = NDArray[np.float64]

MEASURES = (
    "shift_error",
    "shift_error_median",
    "shift_error_per_landmark",
    "shift_lag",
    "background_error",
    "background_error_median",
    "position_identity",
    "position_identity_in_frame",
)
"""Names of the measures of `measure_layout_reliance`."""
SHIFT = 0.2
"""Distance by which the object is moved over its background, share of the side."""


@dataclass(frozen=True)
class MovedObjects:
    """Landmarks of composites of N images.

    Points are in pixels of the input, NaN where not detected.

    Attributes:
        placed: (N, K, 2), landmarks with the object at its own place on its own background.
        moved: (N, K, 2), landmarks with the object moved over the same background.
        shift: (N, 2), by which it was moved.
        swapped: (N, K, 2), landmarks with the object at its own place on the background of another image.
        covers: (N, K), whether the landmark of the image itself lies on what was cut out.
    """

    placed: Floats
    moved: Floats
    shift: Floats
    swapped: Floats
    covers: NDArray[np.bool_]


def measure_layout_reliance(objects: MovedObjects | None, xy: Floats, side: int, *, facing: bool) -> dict[str, Any]:
    """Measure how far landmarks rely on layout.

    Args:
        objects: Landmarks of the composites; None if there are none.
        xy: (N, K, 2), landmarks of the images, NaN where not detected.
        side: Side of the network's input, pixels.
        facing: Whether a category's images may show the mean shape mirrored.

    Returns:
        A dictionary for JSON, None where a number is undefined. Distances are in percent of the side:

        - `shift_error`, `shift_error_median`: distance of a landmark from its place on the object after the object was moved
          by `SHIFT` of the side. `shift_error_per_landmark`: the mean by landmark.
        - `shift_lag`: share of the shift by which landmarks stay behind; 0: they follow, 1: they do not move.
        - `background_error`, `background_error_median`: distance by which a landmark moves on another background.
        - `position_identity`: share of the landmarks whose identity is told by position alone in the canonical frame: the
          nearest landmark of the mean shape is their own. `position_identity_in_frame`: likewise in the input frame.
    """
    if objects is None:
        return dict.fromkeys(MEASURES)
    unit = 100 / side
    shift = objects.shift[:, None]
    residual = np.where(objects.covers[..., None], objects.moved - objects.placed - shift, np.nan)
    distance = unit * np.linalg.norm(residual, axis=-1)
    lag = -(residual * shift).sum(axis=-1) / np.maximum((shift**2).sum(axis=-1), 1e-12)
    background = unit * np.linalg.norm(
        np.where(objects.covers[..., None], objects.swapped - objects.placed, np.nan), axis=-1
    )
    return {
        "shift_error": _number(distance, np.mean),
        "shift_error_median": _number(distance, np.median),
        "shift_error_per_landmark": json_numbers(_by_landmark(distance)),
        "shift_lag": _number(lag, np.mean),
        "background_error": _number(background, np.mean),
        "background_error_median": _number(background, np.median),
        "position_identity": json_number(identity_by_position(xy, canonical=True, facing=facing)),
        "position_identity_in_frame": json_number(identity_by_position(xy, canonical=False, facing=facing)),
    }


def identity_by_position(xy: Floats, *, canonical: bool, facing: bool) -> float:
    """Return the share of the landmarks (N, K, 2) that are nearest to the mean position of their own landmark; NaN for none.

    Args:
        xy: Landmarks, NaN where not detected.
        canonical: Whether positions are compared in the canonical frame, or else as they are.
        facing: Whether images may show the mean shape mirrored.
    """
    if canonical:
        shape = mean_shape(xy, mirrored=facing)
        xy = to_canonical(fit_to_images(shape, xy, mirrored=facing), xy)
    known = np.asarray(np.isfinite(xy).all(axis=-1), np.bool_)
    seen = known.any(axis=0)
    xy, known = xy[:, seen], known[:, seen]
    if not known.any():
        return math.nan
    mean = np.where(known[..., None], xy, 0).sum(axis=0) / known.sum(axis=0)[:, None]
    distance = np.linalg.norm(xy[:, :, None] - mean, axis=-1)
    nearest = np.where(np.isfinite(distance), distance, np.inf).argmin(axis=-1)
    return float((nearest == np.arange(len(mean)))[known].mean())


def _number(values: Floats, of: Any) -> float | None:
    finite = values[np.isfinite(values)]
    return json_number(float(of(finite))) if len(finite) else None


def _by_landmark(values: Floats) -> Floats:
    known = np.isfinite(values)
    count = known.sum(axis=0)
    mean: Floats = np.where(count > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return mean
