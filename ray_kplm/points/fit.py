"""Fit points to a few labelled images, choosing by cross-validation how.

N images, K landmarks, L points. Coordinates are shares of the side of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import DataError
from ray_kplm.evaluation.completion import observed_means
from ray_kplm.points.recipes import THESIS, Recipe, fit_recipe
from ray_kplm.points.regressor import Floats, PointRegressor

LEAST_IMAGES = 3
"""Images that a point must be labelled in: fewer tell nothing about the error."""
LEAST_LOCAL_IMAGES = 30
"""Images from which on a local part is tried."""
FEW_GROUPS = 20
"""Groups of images below which the standard error of a difference says little, and the best recipe is taken."""
MOST_FOLDS, LEAVE_ONE_OUT = 10, 20
"""Folds of the cross-validation; up to so many groups of images each is a fold."""

RECIPES = (
    THESIS,
    *(Recipe("image", ridge, field=True) for ridge in (1.0, 0.3, 0.1, 0.03, 0.01)),
    *(Recipe("similarity", ridge, field=True) for ridge in (None, 3.0, 1.0, 0.3, 0.1)),
)
"""What is compared. The best of them is then tried with a robust loss and with a local part."""
_REACHES = (0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Trial:
    """A recipe and its cross-validated errors.

    Attributes:
        recipe: It.
        predicted: (N, L, 2), of each image by a map that was fitted without its group.
        errors: (N, L), distances to the labels, shares of the object's size; NaN where not labelled.
        group_errors: (G,), their means in each group of images.
    """

    recipe: Recipe
    predicted: Floats
    errors: Floats
    group_errors: Floats

    @property
    def mean(self) -> float:
        """Mean error over groups."""
        return float(self.group_errors.mean())


@dataclass(frozen=True, eq=False)
class PointFit:
    """A map that was fitted on labels, and how well it does on images that it did not see.

    Attributes:
        regressor: Fitted on all images.
        recipe: How.
        predicted: (N, L, 2), each by a map that was neither fitted nor chosen with the labels of its group.
        errors: (N, L), their distances to the labels, shares of the object's size; NaN where not labelled.
        thesis: The thesis' ridge regression, which is taken unless another is better by more than a standard error.
        gain: How much the chosen one is better than that, a share of the object's size: mean over groups of images.
        gain_error: Standard error of `gain`.
        trials: All that was compared, the best first.
    """

    regressor: PointRegressor
    recipe: Recipe
    predicted: Floats
    errors: Floats
    thesis: Trial
    gain: float
    gain_error: float
    trials: tuple[Trial, ...]

    @property
    def per_point(self) -> Floats:
        """Mean error of each point, (L,)."""
        return observed_means(self.errors)

    @property
    def error(self) -> float:
        """Mean over points of `per_point`."""
        return float(self.per_point.mean())


def fit_points(
    xy: Floats,
    targets: Floats,
    *,
    groups: Sequence[Any] | None = None,
    sizes: Floats | None = None,
    seed: int = 0,
    recipes: Sequence[Recipe] = RECIPES,
) -> PointFit:
    """Fit points to labelled images.

    Recipes are compared by cross-validation over groups of images. The thesis' ridge regression is taken unless the best of the
    others has a lower error by more than the standard error of the difference over groups (with few groups, a lower error).

    Args:
        xy: (N, K, 2) landmarks, complete.
        targets: (N, L, 2) labelled points, NaN where not labelled.
        groups: (N,), of each image: images of one group, as the frames of a video, are never used to judge each other.
        sizes: (N,), sizes of the objects that errors are divided by, shares of the side; by default of the landmarks,
            see `object_sizes`.
        seed: Of the folds.
        recipes: What is compared; the thesis' is added if it is not among them.

    Raises:
        DataError: A point is labelled in fewer than `LEAST_IMAGES` groups of images.
    """
    sizes = object_sizes(xy) if sizes is None else sizes
    _, group = np.unique(np.arange(len(xy)) if groups is None else np.asarray(groups), return_inverse=True)
    _check(targets, group)
    folds = make_folds(group, seed)

    def tried(recipe: Recipe) -> Trial:
        predicted = cross_validated(xy, targets, folds, recipe)
        errors = distances(predicted, targets, sizes)
        return Trial(recipe, predicted, errors, _group_means(errors, group))

    thesis = tried(THESIS)
    trials = [thesis, *(tried(recipe) for recipe in recipes if recipe != THESIS)]
    trials += [
        tried(recipe) for recipe in _refined(min(trials, key=lambda trial: trial.mean).recipe, len(folds), len(xy))
    ]
    chosen = _choose(trials, np.ones(len(thesis.group_errors), bool))
    predicted = np.empty_like(targets)
    for number in range(len(thesis.group_errors)):
        others = np.arange(len(thesis.group_errors)) != number
        predicted[group == number] = _choose(trials, others).predicted[group == number]
    difference = thesis.group_errors - chosen.group_errors
    return PointFit(
        fit_recipe(xy, targets, chosen.recipe), chosen.recipe, predicted, distances(predicted, targets, sizes), thesis,
        float(difference.mean()), _standard_error(difference), tuple(sorted(trials, key=lambda trial: trial.mean)),
    )  # fmt: skip


def object_sizes(xy: NDArray[np.floating[Any]]) -> Floats:
    """Return the sizes (N,) of objects: the square root of the area of the box around their landmarks (N, K, 2).

    Flat boxes count as a quarter as wide as long, and small ones as a third of the median, so that images in which landmarks
    fail do not decide. A single landmark has no size: errors are then shares of the side.
    """
    sides = np.ptp(np.asarray(xy, np.float64), axis=1)
    longer = sides.max(axis=1)
    sizes = np.sqrt(longer * np.maximum(sides.min(axis=1), longer / 4))
    sizes = np.maximum(sizes, np.median(sizes) / 3)
    return np.asarray(np.where(sizes > 0, sizes, 1.0), np.float64)


def make_folds(group: NDArray[np.integer[Any]], seed: int) -> list[NDArray[np.bool_]]:
    """Return the images (N,) that each fold holds out: whole groups, numbered from 0, dealt out at random."""
    count = int(group.max()) + 1
    folds = count if count <= LEAVE_ONE_OUT else MOST_FOLDS
    fold_of = np.empty(count, np.int64)
    fold_of[np.random.default_rng(seed).permutation(count)] = np.arange(count) % folds
    return [fold_of[group] == fold for fold in range(folds)]


def cross_validated(xy: Floats, targets: Floats, folds: Sequence[NDArray[np.bool_]], recipe: Recipe) -> Floats:
    """Return the points (N, L, 2) of each image by a map that was fitted on the other folds; NaN if none has the point."""
    predicted = np.full(targets.shape, np.nan)
    for held_out in folds:
        others = targets[~held_out]
        kept = np.isfinite(others).all(axis=-1).any(axis=0)
        regressor = fit_recipe(xy[~held_out], others[:, kept], recipe)
        predicted[np.ix_(held_out, kept)] = regressor.predict(xy[held_out])
    return predicted


def distances(predicted: Floats, targets: Floats, sizes: Floats) -> Floats:
    """Return the distances (N, L) of points (N, L, 2), divided by sizes (N,)."""
    return np.asarray(np.linalg.norm(predicted - targets, axis=-1) / sizes[:, None], np.float64)


def _refined(best: Recipe, folds: int, number: int) -> list[Recipe]:
    """Return variants of the best recipe that are tried too."""
    variants = [replace(best, robust=True)]
    if number >= LEAST_LOCAL_IMAGES and best.ridge is not None:
        variants += [replace(best, reach=reach) for reach in _REACHES]
    return variants


def _choose(trials: Sequence[Trial], rows: NDArray[np.bool_]) -> Trial:
    """Return the best of trials on some groups (G,) if it is better than the first by more than a standard error."""
    thesis = trials[0]
    best = min(trials, key=lambda trial: float(trial.group_errors[rows].mean()))
    difference = (thesis.group_errors - best.group_errors)[rows]
    margin = 0.0 if len(difference) < FEW_GROUPS else _standard_error(difference)
    return best if difference.mean() > margin else thesis


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


def _group_means(errors: Floats, group: NDArray[np.integer[Any]]) -> Floats:
    return np.array([float(observed_means(errors[group == number].ravel())) for number in range(group.max() + 1)])


def _check(targets: Floats, group: NDArray[np.integer[Any]]) -> None:
    """Raise DataError unless each point is labelled in enough groups."""
    labelled: NDArray[np.bool_] = np.asarray(np.isfinite(targets).all(axis=-1))
    counts = np.array([len(np.unique(group[labelled[:, point]])) for point in range(targets.shape[1])])
    if len(counts) == 0 or counts.min() < LEAST_IMAGES:
        few = (
            f"point {int(counts.argmin())} is labelled in {counts.min()} images"
            if len(counts)
            else "there are no points"
        )
        raise DataError(f"{few}: {LEAST_IMAGES} images of different groups are needed at least; label more")
