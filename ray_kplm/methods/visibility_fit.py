"""Fit of a `VisibilityModel` without annotation: by synthetic occluders, and by how an object is turned.

A landmark that something covers looks different in its heatmap; occluders that are pasted over known landmarks show how. A
landmark on a side that the object turns away shows nothing unusual there, as the network knows its place from the others. But
the surface around it is foreshortened: the layout of the landmarks around it covers a smaller area than in other images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.methods.visibility import OWN_FEATURES, VisibilityModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_OWN = len(OWN_FEATURES)
_OWN_PENALTY, _LAYOUT_PENALTY, _FREE = 5.0, 100.0, 1e-3
"""Of squared weights of standardised features: by how many images a landmark's own weights are drawn to those that all
landmarks share, and those of the layout to 0. The offset is free."""
_OCCLUDED_WEIGHT = 0.05
"""Weight of a landmark in an occluded image beside one in an image as it is: real occluders are rarer than synthetic ones."""
_FORESHORTENED = 0.88
"""A landmark is turned away where the area around it is below this share of what it is in the images that show most of it."""
_SHOWS_MOST = 0.9
"""Quantile of the area, over the images, that stands for those that show most of it."""
_MOST_TURNED, _LEAST_TURNED = 0.05, 0.002
"""Share of the images in which a landmark is turned away at most, as the layout of a jointed object changes for other reasons,
and at least."""
_CONTRASTED = 0.3
"""Share of the images, those with the smallest area, from which the direction is learnt in which a landmark turns away."""
_HALVINGS = 40
"""Of the interval in which an offset is searched for."""
_AROUND = 1.2
"""Standard deviation of the weights of the landmarks around one, in units of the landmarks' root mean square distance from
their centre. Chosen on the synthetic category: with fewer landmarks the area is noisy."""
_FLAT = 1e-3
"""Least area of the mean layout around a landmark; a smaller one has no foreshortening."""
_NEWTON_STEPS = 15
_LARGEST_LOGIT = 30.0
_LEAST_SPREAD = 1e-3
"""Of a feature that is standardised; one that varies less has no influence."""


@dataclass(frozen=True)
class Sample:
    """N images as they are, and the same images with occluders.

    Attributes:
        features: (N, K, F), `visibility.features`.
        occluded: (N, K, F), features of the images with occluders.
        hidden: (N, K), landmarks that an occluder hides.
        clear: (N, K), landmarks that no occluder touches.
    """

    features: NDArray[np.floating]
    occluded: NDArray[np.floating]
    hidden: Bools
    clear: Bools

    @property
    def images(self) -> int:
        """N."""
        return len(self.features)

    @classmethod
    def join(cls, pieces: list[Sample]) -> Sample:
        """Return the samples of several parts as one, in their order."""
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in names})


def fit(sample: Sample) -> VisibilityModel:
    """Fit a model to a sample. The same sample gives the same model."""
    own, own_offset = _fit_covered(sample)
    layout = sample.features[:, 0, _OWN:].astype(np.float64)
    turned, turned_offset = _fit_turned(layout)
    weights = np.concatenate([own, turned], axis=1)
    return VisibilityModel(weights.astype(np.float32), np.stack([own_offset, turned_offset], axis=1).astype(np.float32))


def foreshortening(layout: Floats) -> Floats:
    """Return the area around each landmark, relative to the images that show most of it: (N, K), 1 where it has no area.

    Around a landmark, the map from the mean layout to that of an image is nearly affine; its determinant is the area. It is the
    least-squares map of all landmarks with weights that fall with the distance in the mean layout.

    Args:
        layout: (N, 2 K), `visibility.layout`.
    """
    places = layout.reshape(len(layout), -1, 2)
    mean = places.mean(axis=0)
    squared = np.square(mean[:, None] - mean).sum(axis=-1)
    weights = np.exp(-squared / (2 * _AROUND**2))
    weights /= weights.sum(axis=1, keepdims=True)
    here_KC, there_NKC = weights @ mean, np.einsum("kj,njc->nkc", weights, places)
    crossed = np.einsum("kj,njc,jd->nkcd", weights, places, mean) - there_NKC[..., None] * here_KC[:, None, :]
    own = np.einsum("kj,jc,jd->kcd", weights, mean, mean) - here_KC[..., None] * here_KC[:, None, :]
    flat = np.abs(np.linalg.det(own)) < _FLAT
    area: Floats = np.where(flat, 1.0, np.linalg.det(crossed) / np.where(flat, 1.0, np.linalg.det(own)))
    return area / np.maximum(np.quantile(area, _SHOWS_MOST, axis=0), _FLAT)


def _fit_covered(sample: Sample) -> tuple[Floats, Floats]:
    """Return weights (K, F') of the landmarks' own features and offsets (K,), which tell landmarks that something covers."""
    plain = sample.features[..., :_OWN].astype(np.float64)
    mean, scale = _standard(plain)
    both = np.concatenate([plain, sample.occluded[..., :_OWN]])
    inputs = _with_one((both - mean) * scale)
    there = np.concatenate([np.ones(sample.hidden.shape), ~sample.hidden])
    weight = np.concatenate(
        [np.ones(sample.hidden.shape), np.where(sample.hidden | sample.clear, _OCCLUDED_WEIGHT, 0.0)]
    )
    free = np.r_[np.ones(_OWN), _FREE]
    shared = _logistic(inputs.reshape(-1, _OWN + 1), there.ravel(), weight.ravel(), np.zeros(_OWN + 1), free)
    penalty = np.r_[np.full(_OWN, _OWN_PENALTY), _FREE]
    fitted = [_logistic(inputs[:, k], there[:, k], weight[:, k], shared, penalty) for k in range(inputs.shape[1])]
    return _unstandard(np.stack(fitted), mean, scale)


def _fit_turned(layout: Floats) -> tuple[Floats, Floats]:
    """Return weights (K, 2 K) of the layout and offsets (K,), which tell landmarks on a side that is turned away."""
    area = foreshortening(layout)
    there = (area > np.quantile(area, _CONTRASTED, axis=0)).astype(np.float64)
    turned = np.clip((area < _FORESHORTENED).mean(axis=0), _LEAST_TURNED, _MOST_TURNED)
    mean, scale = _standard(layout)
    inputs = _with_one((layout - mean) * scale)
    penalty = np.r_[np.full(layout.shape[1], _LAYOUT_PENALTY), _FREE]
    start, weight = np.zeros(inputs.shape[1]), np.ones(len(layout))
    fitted = np.stack([_logistic(inputs, there[:, k], weight, start, penalty) for k in range(area.shape[1])])
    fitted[:, -1] = _offsets(inputs[:, :-1] @ fitted[:, :-1].T, 1 - turned)
    return _unstandard(fitted, mean, scale)


def _offsets(logit: Floats, mean: Floats) -> Floats:
    """Return what must be added to logits (N, K) so that the probabilities have these means, (K,)."""
    low, high = np.full(len(mean), -_LARGEST_LOGIT), np.full(len(mean), _LARGEST_LOGIT)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_low = _sigmoid(logit + middle).mean(axis=0) < mean
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return np.asarray((low + high) / 2, np.float64)


def _standard(features: Floats) -> tuple[Floats, Floats]:
    """Return the mean of features (N, ..., F) and the inverse of their standard deviation, 0 where they do not vary."""
    spread = features.std(axis=0)
    scale: Floats = np.where(spread > _LEAST_SPREAD, 1 / np.maximum(spread, _LEAST_SPREAD), 0.0)
    return features.mean(axis=0), scale


def _with_one(inputs: Floats) -> Floats:
    return np.concatenate([inputs, np.ones((*inputs.shape[:-1], 1))], axis=-1)


def _unstandard(weights: Floats, mean: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Return weights and offsets of features as they are, from those (K, F + 1) of standardised ones."""
    scaled = weights[:, :-1] * scale
    return scaled, weights[:, -1] - (scaled * mean).sum(axis=1)


def _logistic(inputs: Floats, target: Floats, weight: Floats, prior: Floats, penalty: Floats) -> Floats:
    """Return the weights (D,) of a logistic regression by Newton's method.

    Args:
        inputs: (N, D).
        target: (N,), 0 or 1.
        weight: (N,), of the observations.
        prior: (D,), the weights without observations.
        penalty: (D,), of the squared difference from the prior.
    """
    weights = prior.copy()
    for _ in range(_NEWTON_STEPS):
        probability = _sigmoid(inputs @ weights)
        curvature = weight * probability * (1 - probability)
        slope = inputs.T @ (weight * (probability - target)) + penalty * (weights - prior)
        step = np.linalg.solve((inputs.T * curvature) @ inputs + np.diag(penalty), slope)
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit.clip(-_LARGEST_LOGIT, _LARGEST_LOGIT))), np.float64)
