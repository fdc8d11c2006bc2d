"""How a map from landmarks to points is fitted: ridge regression, with a frame, a prior, a robust loss and a local part.

N images, K landmarks, L points. All coordinates are shares of the side of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.completion import observed_means
from ray_kplm.evaluation.regression import FORWARD_RIDGE, fit_regressor, groups_by_presence
from ray_kplm.points.regressor import Floats, Frame, PointRegressor

FIELD_LENGTH, FIELD_NOISE = 1.0, 0.3
"""Of the deformation field: how far it reaches, in units of the root mean square distance of the landmarks from their centre,
and the standard deviation of a landmark about it, relative to the field's own. Twice or half of either changes the errors by
a few percent."""
_FIELD_SHIFT = 2.0
"""Standard deviation of the constant part of the field, relative to the local one."""
_CLIP = 3.0
"""Residuals above this multiple of the median residual of their point count as if they were as large."""
_ROBUST_ROUNDS, _REFERENCE_ROUNDS = 6, 5


@dataclass(frozen=True)
class Recipe:
    """How to fit.

    Attributes:
        frame: Of the `PointRegressor`.
        ridge: Strength as of `evaluation.regression.fit_regressor`. None: no weights are fitted, only the mean of each point.
        field: Whether weights are shrunk towards those of a smooth deformation field instead of 0: points then move as the
            landmarks near them do where labels do not say otherwise.
        robust: Whether labels that are far off count less (Huber's loss).
        reach: Width of the local part, in medians of the distances between images; None: there is no local part.
    """

    frame: Frame = "image"
    ridge: float | None = FORWARD_RIDGE
    field: bool = False
    robust: bool = False
    reach: float | None = None

    def __str__(self) -> str:
        """Return a description for people."""
        parts = ["deformation field of the landmarks" if self.field else "ridge regression"]
        if self.field:
            parts.append("means only" if self.ridge is None else f"ridge {self.ridge:g} about it")
        else:
            parts[0] += f" {self.ridge:g}"
        parts += ["in the frame of the object"] if self.frame == "similarity" else []
        parts += ["robust"] if self.robust else []
        parts += [f"local within {self.reach:g}"] if self.reach else []
        return ", ".join(parts)


THESIS = Recipe()
"""The forward regression of the thesis, section 2.6."""


def fit_recipe(xy: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]], recipe: Recipe) -> PointRegressor:
    """Fit a map to labelled images.

    Args:
        xy: (N, K, 2) landmarks, complete.
        targets: (N, L, 2) points, NaN where not labelled; each in one image at least.
        recipe: How.
    """
    number, landmarks, points = len(xy), xy.shape[1], targets.shape[1]
    empty = PointRegressor(np.zeros(2 * landmarks), np.zeros(2 * points), np.zeros((2 * landmarks, 2 * points)))
    if recipe.frame == "similarity":
        empty = replace(empty, frame="similarity", reference=mean_shape(xy))
    z, centre, scale = empty.in_frame(xy)
    y = empty.to_frame(targets, centre, scale).reshape(number, -1)
    fitted = _fit(z, y, recipe, empty)
    for _ in range(_ROBUST_ROUNDS if recipe.robust else 0):
        fitted = _fit(z, _clipped(y, fitted.in_frame_points(z)), recipe, empty)
    return fitted


def mean_shape(xy: NDArray[np.floating[Any]]) -> Floats:
    """Return the mean (K, 2) of landmarks (N, K, 2) that are moved, turned and scaled onto each other, centred.

    It has the place 0, the turn and the root mean square size of the plain mean of the landmarks.
    """
    mean = np.asarray(np.asarray(xy, np.float64).mean(axis=0), np.float64)
    reference: Floats = mean - mean.mean(axis=0)
    size = np.sqrt((reference**2).sum()) or 1.0
    landmarks = len(reference)
    for _ in range(_REFERENCE_ROUNDS):
        frame = PointRegressor(
            np.zeros(2 * landmarks), np.zeros(0), np.zeros((2 * landmarks, 0)), "similarity", reference
        )
        reference = np.asarray(frame.in_frame(xy)[0].mean(axis=0), np.float64).reshape(-1, 2)
        reference = (reference - reference.mean(axis=0)) * size / max(np.sqrt((reference**2).sum()), 1e-9)
    return reference


def field_weights(landmarks: Floats, points: Floats) -> Floats:
    """Return how much the displacement of each landmark moves each point, (K, L), if displacements are a smooth random field.

    The field is the sum of a shift, a linear and a local part, normally distributed (kriging, or Gaussian process regression:
    Rasmussen & Williams 2006, chapter 2); the displacement of a landmark is the field at its mean place, and noise.

    Args:
        landmarks: (K, 2), their mean places.
        points: (L, 2), likewise.
    """
    centre = landmarks.mean(axis=0)
    size = max(float(np.sqrt(((landmarks - centre) ** 2).sum(axis=1).mean())), 1e-9)
    p, q = (landmarks - centre) / size, (points - centre) / size
    noise = FIELD_NOISE**2 * np.eye(len(p))
    return np.asarray(np.linalg.solve(_covariance(p, p) + noise, _covariance(p, q)), np.float64)


def _covariance(p: Floats, q: Floats) -> Floats:
    squared = ((p[:, None] - q) ** 2).sum(axis=-1)
    return np.asarray(_FIELD_SHIFT**2 + p @ q.T + np.exp(-squared / (2 * FIELD_LENGTH**2)), np.float64)


def _fit(z: Floats, y: Floats, recipe: Recipe, empty: PointRegressor) -> PointRegressor:
    """Fit in the frame: z (N, 2 K), y (N, 2 L), NaN where not labelled."""
    x_mean = z.mean(axis=0)
    x = z - x_mean
    weights: Floats = empty.weights
    if recipe.field:
        means = observed_means(y).reshape(-1, 2)
        weights = np.asarray(np.kron(field_weights(x_mean.reshape(-1, 2), means), np.eye(2)), np.float64)
    rest = y - x @ weights
    if recipe.ridge is None:
        return replace(empty, x_mean=x_mean, y_mean=observed_means(rest), weights=weights)
    if recipe.reach is None:
        fitted = fit_regressor(x, rest, recipe.ridge)
        y_mean = fitted.y_mean - fitted.x_mean @ fitted.weights
        return replace(empty, x_mean=x_mean, y_mean=y_mean, weights=weights + fitted.weights)
    return _with_local(replace(empty, x_mean=x_mean, weights=weights), x, rest, recipe.ridge, recipe.reach)


def _with_local(start: PointRegressor, x: Floats, rest: Floats, ridge: float, reach: float) -> PointRegressor:
    """Fit weights, means and the local part together, in the dual form of kernel ridge regression.

    Args:
        start: With the mean of the landmarks and the weights of the prior.
        x: (N, 2 K), centred.
        rest: (N, 2 L), what the prior does not explain, NaN where not labelled.
        ridge: Of the weights.
        reach: As of `Recipe`.
    """
    squared = ((x[:, None] - x) ** 2).sum(axis=-1)
    width = reach * float(np.sqrt(np.median(squared[np.triu_indices(len(x), 1)]))) or 1.0
    bumps = np.exp(-squared / (2 * width**2))
    penalty = max(ridge * float((x**2).sum(axis=0).max()), 1e-12)
    kernel = x @ x.T / penalty + bumps
    duals, means = np.zeros_like(rest), np.zeros(rest.shape[1])
    for rows, columns in groups_by_presence(np.isfinite(rest)):
        count = int(rows.sum())
        bordered = np.ones((count + 1, count + 1))
        bordered[:-1, :-1] = kernel[np.ix_(rows, rows)] + np.eye(count)
        bordered[-1, -1] = 0.0
        right = np.concatenate([rest[np.ix_(rows, columns)], np.zeros((1, len(columns)))])
        solved = np.linalg.solve(bordered, right)
        duals[np.ix_(rows, columns)], means[columns] = solved[:-1], solved[-1]
    return replace(
        start, y_mean=means, weights=start.weights + x.T @ duals / penalty, support=x + start.x_mean, local=duals,
        width=width,
    )  # fmt: skip


def _clipped(y: Floats, fitted: Floats) -> Floats:
    """Return the points moved towards their fitted places where they are far: a step to the minimum of Huber's loss."""
    rest = (y - fitted).reshape(len(y), -1, 2)
    far = np.linalg.norm(rest, axis=-1)
    limit = _CLIP * np.maximum(np.nanmedian(far, axis=0), np.nanmedian(far))
    factor = np.minimum(1.0, limit / np.maximum(far, 1e-12))
    return np.asarray((fitted.reshape(rest.shape) + factor[..., None] * rest).reshape(y.shape), np.float64)
