"""All figures of one set of landmarks, ready for JSON."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.completion import complete_landmarks
from ray_kplm.evaluation.quality import landmark_distances
from ray_kplm.evaluation.regression import (
    BACKWARD_RIDGE,
    FORWARD_RIDGE,
    NmeResult,
    backward_nme,
    forward_nme,
    mean_shape_nme,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LandmarkSet:
    """Discovered and annotated landmarks of one part of a dataset; N images, crop pixels.

    discovered: (N, K, 2), NaN where not detected.
    truth: (N, L, 2), NaN where not annotated.
    normaliser: (N,), NaN where it cannot be computed (normalisers.normaliser).
    image_size: (N,), side of the crop.
    """

    discovered: Floats
    truth: Floats
    normaliser: Floats
    image_size: Floats


def evaluate_landmarks(
    train: LandmarkSet,
    test: LandmarkSet,
    *,
    train_sizes: tuple[int | None, ...] = (300, None),
    draws: int = 10,
    seed: int = 0,
    forward_ridge: float = FORWARD_RIDGE,
    backward_ridge: float = BACKWARD_RIDGE,
) -> dict:
    """Errors (% of the normaliser) and counts as plain numbers and lists; None where there is no number.

    train_sizes: annotated training images the regressors are fitted on. The first is that of `forward_nme`
        and of the backward errors; each further one adds `forward_nme_<n>`, `forward_nme_all` for None.
    """
    if not train_sizes:
        raise ConfigError("train_sizes (): must name at least one number of images; give (300, None)")
    train, test = _in_image_sides(train), _in_image_sides(test)
    completed_train, completed_test, kept = complete_landmarks(train.discovered, test.discovered)

    def forward(count: int | None) -> NmeResult:
        parts = (completed_train, train.truth, completed_test, test.truth, test.normaliser)
        return forward_nme(*parts, train_images=count, draws=draws, seed=seed, ridge=forward_ridge)

    first, *further = train_sizes
    main = forward(first)
    backward = backward_nme(
        train.discovered,
        train.truth,
        test.discovered,
        test.truth,
        test.normaliser,
        train_images=first,
        draws=draws,
        seed=seed,
        ridge=backward_ridge,
    )
    images = len(test.discovered)
    detected = np.isfinite(test.discovered).all(axis=-1)
    return {
        "forward_nme": _number(main.mean),
        "forward_nme_sd": _number(main.sd),
        **{f"forward_nme_{count or 'all'}": _number(forward(count).mean) for count in further},
        "forward_per_landmark": _numbers(main.per_landmark),
        "backward_nme": _number(backward.mean),
        "backward_nme_sd": _number(backward.sd),
        "backward_per_landmark": _numbers(backward.per_landmark),
        "mean_shape_nme": _number(mean_shape_nme(train.truth, test.truth, test.normaliser).mean),
        "points_per_image": _number(detected.sum() / images) if images else None,
        "min_landmark_distance": _number(min_landmark_distance(test.discovered)),
        "landmarks": int(test.discovered.shape[1]),
        "images": images,
        "train_images": main.train_images,
        "left_out": {
            "forward_points": main.left_out,
            "backward_points": backward.left_out,
            "images_without_normaliser": int((~np.isfinite(test.normaliser)).sum()),
            "landmarks_never_detected": int((~kept).sum()),
        },
    }


def min_landmark_distance(xy: ArrayLike) -> float:
    """How close the two closest landmarks stand, percent of the image's side; two on one place give about 0.

    xy: (N, K, 2) in image sides, NaN where not detected. The distance of a pair is the mean over images that
    show both; NaN if there is no such pair.
    """
    closest = float(landmark_distances(np.asarray(xy, dtype=np.float64)).min(initial=math.inf))
    return 100.0 * closest if math.isfinite(closest) else math.nan


def _in_image_sides(part: LandmarkSet) -> LandmarkSet:
    """The same in units of the crop's side, so that crops of different sizes can share a regressor."""
    sides = np.asarray(part.image_size, dtype=np.float64)
    return LandmarkSet(
        discovered=np.asarray(part.discovered, dtype=np.float64) / sides[:, None, None],
        truth=np.asarray(part.truth, dtype=np.float64) / sides[:, None, None],
        normaliser=np.asarray(part.normaliser, dtype=np.float64) / sides,
        image_size=np.ones_like(sides),
    )


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: Floats) -> list[float | None]:
    return [_number(value) for value in values]
