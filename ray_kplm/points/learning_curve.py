"""How the error falls with the number of labelled images, and what the next ones would gain.

N images, K landmarks, L points. Coordinates are shares of the side of the network's input, errors shares of the object's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from ray_kplm.evaluation.completion import observed_means
from ray_kplm.points.fit import RECIPES, distances, object_sizes
from ray_kplm.points.recipes import Recipe, fit_recipe
from ray_kplm.points.regressor import Floats

LEAST_GROUPS = 8
"""Groups of images below which nothing is said about the next ones."""
_SIZES = (3, 5, 7, 10, 14, 20, 30, 50, 100, 200)
_DRAWS, _HELD_OUT = 12, 0.25
"""Random divisions of the labels, and the share of each that errors are measured on."""
_EXPONENTS = (0.125, 0.25, 0.5, 1.0)
_BOOTSTRAPS = 200


@dataclass(frozen=True)
class Forecast:
    """What more labels would gain.

    Attributes:
        labels: How many more.
        now: Error with the labels that there are.
        then: Expected error with the further ones.
        low: Lower end of the interval of `then` that holds nine of ten resampled curves.
        high: Its upper end.
    """

    labels: int
    now: float
    then: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Errors on images that were held out, by the number of groups of images that the map was fitted on.

    Attributes:
        counts: (M,), ascending.
        errors: (M,), of the best recipe for each count.
        spreads: (M,), standard errors over random divisions.
        draws: (D, M), of each division; NaN where a point was labelled in none of its images.
    """

    counts: NDArray[np.int64]
    errors: Floats
    spreads: Floats
    draws: Floats

    def forecast(self, error: float, labels: int, more: int = 10, seed: int = 0) -> Forecast | None:
        """Return what further labels would gain, by a curve a + b / n^c that is fitted to the errors.

        Args:
            error: Cross-validated error with all labels: the curve is moved there.
            labels: How many there are.
            more: How many further ones.
            seed: Of the resampled divisions that the interval is made of.

        Returns:
            The forecast; None if there are too few counts or divisions.
        """
        if len(self.counts) < 3:
            return None
        rng = np.random.default_rng(seed)
        resampled = [self.draws[rng.integers(len(self.draws), size=len(self.draws))] for _ in range(_BOOTSTRAPS)]
        gains = [_gain(self.counts, observed_means(draws), labels, more) for draws in resampled]
        low, high = np.quantile(gains, (0.05, 0.95))
        gain = _gain(self.counts, self.errors, labels, more)
        return Forecast(more, error, error * (1 - gain), error * (1 - high), error * (1 - low))


def learning_curve(
    xy: Floats,
    targets: Floats,
    *,
    groups: Sequence[Any] | None = None,
    sizes: Floats | None = None,
    seed: int = 0,
    recipes: Sequence[Recipe] = RECIPES,
) -> LearningCurve | None:
    """Measure the errors of maps that are fitted on some of the labels. The arguments are those of `fit_points`.

    For each number of labels the recipe counts that is best with it: with few labels another one than with all.

    Returns:
        The curve; None with fewer than `LEAST_GROUPS` groups of images.
    """
    sizes = object_sizes(xy) if sizes is None else sizes
    _, group = np.unique(np.arange(len(xy)) if groups is None else np.asarray(groups), return_inverse=True)
    number = int(group.max()) + 1
    if number < LEAST_GROUPS:
        return None
    largest = number - max(2, round(_HELD_OUT * number))
    counts = [count for count in _SIZES if count < 0.85 * largest] + [largest]
    rng = np.random.default_rng(seed)
    errors = np.full((len(recipes), _DRAWS, len(counts)), np.nan)
    for draw in range(_DRAWS):
        order = rng.permutation(number)
        held_out = np.isin(group, order[largest:])
        for column, count in enumerate(counts):
            fitted_on = np.isin(group, order[:count])
            for row, recipe in enumerate(recipes):
                errors[row, draw, column] = _error(xy, targets, sizes, fitted_on, held_out, recipe)
    best = observed_means(errors.swapaxes(0, 1)).argmin(axis=0)
    draws = errors[best, :, np.arange(len(counts))].T
    means = observed_means(draws)
    spreads = np.nanstd(draws, axis=0, ddof=1) / np.sqrt(_DRAWS)
    return LearningCurve(np.array(counts), means, spreads, draws)


def _error(
    xy: Floats,
    targets: Floats,
    sizes: Floats,
    fitted_on: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    recipe: Recipe,
) -> float:
    """Return the mean error of the points that have labels on both sides."""
    kept = np.isfinite(targets[fitted_on]).all(axis=-1).any(axis=0)
    if not kept.any():
        return float("nan")
    predicted = fit_recipe(xy[fitted_on], targets[fitted_on][:, kept], recipe).predict(xy[held_out])
    errors = distances(predicted, targets[held_out][:, kept], sizes[held_out])
    return float(observed_means(observed_means(errors)))


def _gain(counts: NDArray[np.int64], errors: Floats, labels: int, more: int) -> float:
    """Return the share of the error at `labels` that `more` labels save."""
    best: tuple[float, float] = (np.inf, 0.0)
    for exponent in _EXPONENTS:
        terms = np.stack([np.ones(len(counts)), counts.astype(np.float64) ** -exponent], axis=1)
        weight = np.sqrt(counts)[:, None]  # the end of the curve says most about what follows it
        (a, b), rest = nnls(terms * weight, errors * weight[:, 0])
        now, then = (a + b / n**exponent for n in (labels, labels + more))
        best = min(best, (float(rest), float(1 - then / max(now, 1e-12))))
    return best[1]
