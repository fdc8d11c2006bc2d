"""The `PointSet` of points that were fitted to labels: shares of the landmarks' confidences, partners and edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.completion import observed_means
from ray_kplm.points.layout import Layout, Skeleton
from ray_kplm.points.name_partners import partners_of_names, partners_of_places
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.regressor import Floats, PointRegressor

_REACH = 0.25
"""Standard deviation of the Gaussian by which landmarks near a point count for its confidence and probability, in units of the
root mean square distance of the landmarks from their centre. On the rendered creature 0.2 to 0.4 rank hidden points about as
well as the nearest landmark alone; the weights of the regression rank them worse, as they are of either sign."""


def fitted_set(
    regressor: PointRegressor,
    xy: Floats,
    targets: Floats,
    names: Sequence[str],
    landmark_partners: Sequence[int],
    skeleton: Skeleton = (),
) -> PointSet:
    """Return the set of points that a regressor gives.

    Args:
        regressor: Fitted on the images.
        xy: (N, K, 2) their landmarks, shares of the input's side.
        targets: (N, L, 2) their points, likewise, NaN where not labelled.
        names: L.
        landmark_partners: (K,), in the mirror image; a landmark without one is its own.
        skeleton: Edges of the points; if there are none they are derived from the labels.
    """
    landmarks, points = mean_places(regressor, xy, targets)
    partners = partners_of_names(names)
    if all(partner == n for n, partner in enumerate(partners)):
        partners = partners_of_places(points, landmarks, landmark_partners)
    layout = Layout("", tuple(names), partners, skeleton).joined(targets)
    return PointSet(layout, regressor, near_shares(landmarks, points))


def mean_places(regressor: PointRegressor, xy: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Return the mean places of landmarks (K, 2) and points (L, 2) in the frame of a regressor."""
    z, centre, scale = regressor.in_frame(xy)
    return z.mean(axis=0).reshape(-1, 2), observed_means(regressor.to_frame(targets, centre, scale))


def near_shares(landmarks: Floats, points: Floats) -> NDArray[np.float32]:
    """Return how much each landmark (K, 2) counts for the confidence of each point (L, 2): (L, K), by their distances."""
    size = max(float(np.sqrt(((landmarks - landmarks.mean(axis=0)) ** 2).sum(axis=1).mean())), 1e-9)
    squared = ((points[:, None] - landmarks) ** 2).sum(axis=-1) / (_REACH * size) ** 2 / 2
    weights = np.exp(squared.min(axis=1, keepdims=True) - squared) + 1e-6  # a lost landmark is missed by every point
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
