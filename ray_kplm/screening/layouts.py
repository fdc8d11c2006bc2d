"""How plausible a layout of landmarks is: its distance from those of the training, but for position, size and turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_EXPLAINED = 0.95
"""Share of the variance that the principal components of a model explain."""
_KEPT = 0.8
"""Share of the layouts, those nearest to the mean, that a model is fitted to: some images have other layouts by mistake."""
_FOLDS = 5
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class LayoutModel:
    """The distribution of layouts: a Gaussian in the principal components of the aligned points.

    Attributes:
        mean: (K, 2), the mean layout, centred, of size 1 (`size_of`).
        axes: (C, 2 K), principal components.
        spread: (C,), standard deviation along each.
        rest: Root mean squared distance of a layout from the span of the components.
    """

    mean: Floats
    axes: Floats
    spread: Floats
    rest: float

    @classmethod
    def fit(cls, xy: Floats) -> LayoutModel:
        """Fit a model to layouts (N, K, 2), at least one of them without NaN."""
        xy = xy[np.isfinite(xy).all(axis=(1, 2))]
        mean = np.median(_unit(xy), axis=0)
        near: NDArray[np.bool_] = np.ones(len(xy), np.bool_)
        for _ in range(_ROUNDS):
            mean = _unit(mean[None])[0]
            residual = (_aligned(xy, mean)[0] - mean).reshape(len(xy), -1)
            distance: Floats = np.asarray(np.linalg.norm(residual, axis=1))
            near = distance <= float(np.quantile(distance, _KEPT))
            mean = mean + residual[near].mean(axis=0).reshape(mean.shape)
        mean = _unit(mean[None])[0]
        residual = (_aligned(xy, mean)[0] - mean).reshape(len(xy), -1)[near]
        _, values, axes = np.linalg.svd(residual, full_matrices=False)
        variance = values**2 / len(residual)
        count = int(np.searchsorted(np.cumsum(variance), _EXPLAINED * variance.sum())) + 1
        rest = math.sqrt(max(float(variance[count:].sum()), 1e-8))
        return cls(mean, axes[:count], np.sqrt(np.maximum(variance[:count], 1e-8)), rest)

    def distance(self, xy: Floats) -> Floats:
        """Return the distance of layouts (N, K, 2) from the model: (N,), about 1 for one of the training, NaN for unknown."""
        known = np.asarray(np.isfinite(xy).all(axis=(1, 2)), np.bool_).reshape(len(xy))
        residual = (_aligned(np.where(known[:, None, None], xy, 0), self.mean)[0] - self.mean).reshape(len(xy), -1)
        along = residual @ self.axes.T
        beyond = ((residual - along @ self.axes) ** 2).sum(axis=1) / self.rest**2
        squared = (((along / self.spread) ** 2).sum(axis=1) + beyond) / (len(self.spread) + 1)
        return np.where(known, np.sqrt(squared), math.nan)

    def turn(self, xy: Floats) -> Floats:
        """Return by how many degrees layouts (N, K, 2) are turned against the mean: (N,), -180 to 180, clockwise on screen."""
        return np.degrees(_aligned(xy, self.mean)[1])


def size_of(xy: Floats) -> Floats:
    """Return the size of layouts (N, K, 2): twice the root mean squared distance of the points from their centre, (N,)."""
    centred = xy - xy.mean(axis=1, keepdims=True)
    return np.asarray(2 * np.sqrt((centred**2).sum(axis=2).mean(axis=1)))


def cross_fitted(xy: Floats, groups: NDArray[np.int64]) -> tuple[list[LayoutModel], Floats]:
    """Return models of the layouts (N, K, 2), and the distance (N,) of each layout from the one that has not seen its group.

    A model that has seen a layout finds it nearer than a new one like it.
    """
    names = np.unique(groups)
    fold = (np.random.default_rng(7).permutation(len(names)) % min(_FOLDS, len(names)))[np.searchsorted(names, groups)]
    distance = np.full(len(xy), math.nan)
    models = []
    usable = np.isfinite(xy).all(axis=(1, 2))
    for number in range(int(fold.max()) + 1):
        seen = fold != number
        if not (seen & usable).any():
            seen = np.ones(len(xy), bool)  # one group alone
        models.append(LayoutModel.fit(xy[seen]))
        distance[fold == number] = models[-1].distance(xy[fold == number])
    return models, distance


def _unit(xy: Floats) -> Floats:
    """Return layouts (N, K, 2), centred and of size 1."""
    return np.asarray((xy - xy.mean(axis=1, keepdims=True)) / np.maximum(size_of(xy), 1e-9)[:, None, None])


def _aligned(xy: Floats, mean: Floats) -> tuple[Floats, Floats]:
    """Return layouts (N, K, 2) of size 1, turned to the mean (K, 2), and by what angle they were turned against it: (N,)."""
    unit = _unit(xy)
    points, target = unit[..., 0] + 1j * unit[..., 1], mean[:, 0] + 1j * mean[:, 1]
    angle = np.angle((points * target.conj()).sum(axis=1))
    turned = points * np.exp(-1j * angle)[:, None]
    return np.stack([turned.real, turned.imag], axis=2), angle
