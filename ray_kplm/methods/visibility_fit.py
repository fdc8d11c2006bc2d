"""Fit of a `VisibilityModel` without annotation: by pseudo-labels, and by landmarks that are known to be hidden.

A pseudo-label says that a landmark is there, but its absence says little: a keypoint may be missed. The share of visible
landmarks that have a label is about the same in all images, so the probability of a label is that of being there times a
constant (Elkan and Noto 2008, learning from positive and unlabelled data). The constant of a landmark is the probability of a
label in the images where it is seen best. Given the constant, labels that are missing are filled in by their expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.methods.visibility import OWN_FEATURES, VisibilityModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_OWN_PENALTY, _LAYOUT_PENALTY, _FREE = 5.0, 20.0, 1e-3
"""Of squared weights, of standardised features: by how many images a landmark's own weights are drawn to those that all
landmarks share, and those of the layout to 0. The offset is free."""
_OCCLUDED_WEIGHT = 0.5
"""Weight of a landmark in an occluded image; in an image as it is, it has weight 1."""
_BEST_SHARE = 0.1
"""Share of the images in which a landmark is seen best."""
_ROUNDS = 25
"""Rounds of expectation and maximisation."""
_NEWTON_STEPS = 15
_LARGEST_LOGIT = 30.0
_LEAST_SPREAD = 1e-3
"""Of a feature that is standardised; one that varies less has no influence."""


@dataclass(frozen=True)
class Sample:
    """N images as they are, and the same images with occluders.

    Attributes:
        features: (N, K, F), `visibility.features`.
        labelled: (N, K), whether an image has a pseudo-label for the landmark.
        occluded: (N, K, F), features of the images with occluders.
        hidden: (N, K), landmarks that an occluder hides.
        clear: (N, K), landmarks that no occluder touches.
    """

    features: NDArray[np.floating]
    labelled: Bools
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
    mean = sample.features.mean(axis=0, dtype=np.float64)
    spread = sample.features.std(axis=0, dtype=np.float64)
    scale = np.where(spread > _LEAST_SPREAD, 1 / np.maximum(spread, _LEAST_SPREAD), 0.0)
    both = np.concatenate([sample.features, sample.occluded])
    inputs = np.concatenate([(both - mean) * scale, np.ones((*both.shape[:2], 1))], axis=-1)
    observed = _Observed(
        inputs,
        np.concatenate([sample.labelled, sample.labelled & ~sample.hidden]).astype(np.float64),
        np.concatenate([np.zeros_like(sample.hidden), sample.hidden]),
        np.concatenate([np.ones(sample.hidden.shape), np.where(sample.hidden | sample.clear, _OCCLUDED_WEIGHT, 0.0)]),
    )
    shared = _shared_weights(observed)
    weights = np.stack([_fit_landmark(observed.of(k), shared, sample.images) for k in range(inputs.shape[1])])
    scaled = weights[:, :-1] * scale
    offset = weights[:, -1] - (scaled * mean).sum(axis=1)
    return VisibilityModel(scaled.astype(np.float32), offset.astype(np.float32))


@dataclass(frozen=True)
class _Observed:
    """What is known of N observations of K landmarks, or of one without the second axis.

    Attributes:
        inputs: (N, K, F + 1), standardised features and 1.
        labelled: (N, K), 1 where there is a pseudo-label.
        hidden: (N, K), known to be hidden.
        weight: (N, K).
    """

    inputs: Floats
    labelled: Floats
    hidden: Bools
    weight: Floats

    def of(self, landmark: int) -> _Observed:
        """Return what is known of one landmark."""
        return _Observed(*(value[:, landmark] for value in vars(self).values()))


def _shared_weights(observed: _Observed) -> Floats:
    """Return the weights (F + 1,) of all landmarks together, of their own features alone: 0 for those of the layout."""
    count = observed.inputs.shape[-1]
    own = np.r_[0 : len(OWN_FEATURES), count - 1]
    weights = np.zeros(count)
    penalty = np.r_[np.ones(len(own) - 1), _FREE]
    inputs = observed.inputs[:, :, own].reshape(-1, len(own))
    weights[own] = _logistic(inputs, observed.labelled.ravel(), observed.weight.ravel(), np.zeros(len(own)), penalty)
    return weights


def _fit_landmark(observed: _Observed, shared: Floats, images: int) -> Floats:
    """Return the weights (F + 1,) of one landmark, whose first `images` observations are images as they are."""
    inputs, known = observed.inputs, observed.labelled > 0
    own = len(OWN_FEATURES)
    penalty = np.r_[np.full(own, _OWN_PENALTY), np.full(len(shared) - own - 1, _LAYOUT_PENALTY), _FREE]
    weights = _logistic(inputs, observed.labelled, observed.weight, shared, penalty)
    label_rate = np.quantile(_sigmoid(inputs[:images] @ weights), 1 - _BEST_SHARE)
    for _ in range(_ROUNDS):
        probability = _sigmoid(inputs @ weights)
        missed = (1 - label_rate) * probability / np.maximum(1 - label_rate * probability, 1e-9)
        there = np.where(known, 1.0, np.where(observed.hidden, 0.0, missed))
        weights = _logistic(inputs, there, observed.weight, shared, penalty)
    return weights


def _logistic(inputs: Floats, target: Floats, weight: Floats, prior: Floats, penalty: Floats) -> Floats:
    """Return the weights (D,) of a logistic regression by Newton's method.

    Args:
        inputs: (N, D).
        target: (N,), from 0 to 1.
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
