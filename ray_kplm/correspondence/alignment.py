"""Coherent Point Drift: which points of many images are which of one template (Myronenko & Song, PAMI 2010; thesis 4.2.4).

The template drifts onto an image's points, as Gaussians whose centres move together: first by a similarity (rotation, uniform
scale, translation), then by an affine map, then freely but smoothly. An affine map from the start would mirror the template or
flatten it where points are missing; a similarity cannot. All images of a batch are aligned at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]
_SMALLEST = 1e-8
"""Least variance of the Gaussians, in units of the template's."""
_FIRST, _FIRST_FREE = 0.3, 0.1
"""Largest first variance of the similarity and of the free motion, in the same units. The paper begins with the mean squared
distance of all points: nearly all pairs then count alike, the template shrinks to a spot and turns at random."""
_FLAT = 1e-3
"""A template whose area shrinks to this share is a line."""
_LinearSolver = Callable[[Floats, Floats], Floats]
"""The linear part (B, 2, 2) of a map from the weighted products image x template and template x template (B, 2, 2)."""


@dataclass(frozen=True)
class Drift:
    """How the template may move. outliers: share of an image's points that are expected to belong to nothing, 0 < share < 1.

    width: of the kernel that makes neighbours move alike, and stiffness: what it costs to move otherwise than by the affine map
    (beta and lambda of the paper), in units of the template's spread.
    """

    outliers: float = 0.1
    width: float = 2.0
    stiffness: float = 3.0
    iterations: int = 20
    """Of the similarity, of the affine map and of the free motion each; more change little."""


def align(template: NDArray, points: NDArray, valid: NDArray[np.bool_], drift: Drift = Drift()) -> Floats:
    """The template (K, 2) drifted onto each image's points (B, N, 2), of which the `valid` (B, N) count: (B, K, 2).

    Images need three valid points or more; of those with fewer the result is the template, moved to their middle.
    """
    template = np.asarray(template, np.float64)
    middle, unit = template.mean(axis=0), template.std()
    start = (template - middle) / unit
    weight = np.asarray(valid, np.float64)
    count = np.maximum(weight.sum(axis=1), 1)[:, None]
    centre = (points * weight[..., None]).sum(axis=1) / count
    x = np.where(valid[..., None], (points - centre[:, None]) / unit, 0.0)
    enough = weight.sum(axis=1) >= 3
    placed = np.repeat(start[None], len(x), axis=0)
    if enough.any():
        placed[enough] = _drifted(placed[enough], x[enough], weight[enough], drift)
    return placed * unit + centre[:, None]


def _drifted(start: Floats, x: Floats, weight: Floats, drift: Drift) -> Floats:
    """The start (B, K, 2) under the similarity, the affine map and the free motion, one after the other: (B, K, 2).

    What mirrors or flattens the start is not taken: few points, or points of something else, have such fits.
    """
    variance = np.minimum(_mean_variance(start, x, weight), _FIRST)
    similar, variance = _map_linearly(_similarity, start, start, x, weight, variance, drift)
    affine, _ = _map_linearly(_affine, start, similar, x, weight, variance, drift)
    affine = np.where(_spoils(start, affine), similar, affine)
    free = _smooth(affine, x, weight, drift)
    return np.where(_spoils(start, free), affine, free)


def _spoils(start: Floats, placed: Floats) -> NDArray[np.bool_]:
    """Whether the affine map nearest to what became of the start (B, K, 2) is a reflection, or flattens it: (B, 1, 1)."""
    centred = placed - placed.mean(axis=1, keepdims=True)
    cross, spread = (np.einsum("bkc,bkd->bcd", points, start) for points in (centred, start))
    return (np.linalg.det(cross) <= _FLAT * np.linalg.det(spread))[:, None, None]


def _belonging(placed: Floats, x: Floats, weight: Floats, variance: Floats, drift: Drift) -> Floats:
    """How probably each point (N) is that of each Gaussian (K): (B, K, N). What no Gaussian explains is an outlier."""
    squared = ((placed[:, :, None] - x[:, None]) ** 2).sum(axis=-1)
    near = np.exp(-squared / (2 * variance[:, None, None]))
    points = weight.sum(axis=1)
    noise = 2 * np.pi * variance * drift.outliers / (1 - drift.outliers) * placed.shape[1] / points
    return near * weight[:, None] / (near.sum(axis=1) + noise[:, None])[:, None]


def _mean_variance(placed: Floats, x: Floats, weight: Floats) -> Floats:
    """Mean squared distance, per axis, of all Gaussians to all points: (B,)."""
    squared = ((placed[:, :, None] - x[:, None]) ** 2).sum(axis=-1) * weight[:, None]
    return squared.sum(axis=(1, 2)) / (2 * placed.shape[1] * weight.sum(axis=1))


def _map_linearly(
    solve: _LinearSolver, start: Floats, placed: Floats, x: Floats, weight: Floats, variance: Floats, drift: Drift
) -> tuple[Floats, Floats]:
    """The start (B, K, 2) under each image's best map whose linear part `solve` gives, by expectation maximisation.

    placed (B, K, 2): where the Gaussians are at first. Returns where they end, and their variance (B,).
    """
    for _ in range(drift.iterations):
        p = _belonging(placed, x, weight, variance, drift)
        of_template, of_points = p.sum(axis=2), p.sum(axis=1)
        total = np.maximum(of_template.sum(axis=1), 1e-12)[:, None]
        mean_x = np.einsum("bn,bnc->bc", of_points, x) / total
        mean_y = np.einsum("bk,bkc->bc", of_template, start) / total
        xc, yc = x - mean_x[:, None], start - mean_y[:, None]
        cross = np.einsum("bnc,bkn,bkd->bcd", xc, p, yc)
        spread = np.einsum("bkc,bk,bkd->bcd", yc, of_template, yc) + 1e-9 * np.eye(2)
        linear = solve(cross, spread)
        placed = np.einsum("bcd,bkd->bkc", linear, yc) + mean_x[:, None]
        left = (
            np.einsum("bn,bnc->b", of_points, xc**2)
            - 2 * np.einsum("bcd,bcd->b", cross, linear)
            + np.einsum("bcd,bde,bce->b", linear, spread, linear)
        )
        variance = np.maximum(left / (2 * total[:, 0]), _SMALLEST)
    return placed, variance


def _similarity(cross: Floats, spread: Floats) -> Floats:
    """The rotation with uniform scale of least squared error: (B, 2, 2). In the plane it has a closed form without reflections
    (paper, Fig. 2, where a singular value decomposition serves any dimension)."""
    size = np.trace(spread, axis1=1, axis2=2)
    along = (cross[:, 0, 0] + cross[:, 1, 1]) / size
    across = (cross[:, 1, 0] - cross[:, 0, 1]) / size
    return np.stack([along, -across, across, along], axis=-1).reshape(-1, 2, 2)


def _affine(cross: Floats, spread: Floats) -> Floats:
    """The linear map of least squared error: (B, 2, 2) (paper, Fig. 3)."""
    return cross @ np.linalg.inv(spread)


def _smooth(start: Floats, x: Floats, weight: Floats, drift: Drift) -> Floats:
    """Each image's start (B, K, 2) moved freely, neighbours alike: (B, K, 2)."""
    apart = ((start[:, :, None] - start[:, None]) ** 2).sum(axis=-1)
    kernel = np.exp(-apart / (2 * drift.width**2))
    placed, variance = start, np.minimum(_mean_variance(start, x, weight), _FIRST_FREE)
    for _ in range(drift.iterations):
        p = _belonging(placed, x, weight, variance, drift)
        of_template, of_points = p.sum(axis=2), p.sum(axis=1)
        total = np.maximum(of_template.sum(axis=1), 1e-12)
        pull = np.einsum("bkn,bnc->bkc", p, x)
        stiff = (drift.stiffness * variance)[:, None, None] * np.eye(start.shape[1])
        move = np.linalg.solve(of_template[:, :, None] * kernel + stiff, pull - of_template[..., None] * start)
        placed = start + kernel @ move
        left = (
            np.einsum("bn,bnc->b", of_points, x**2)
            - 2 * np.einsum("bkc,bkc->b", pull, placed)
            + np.einsum("bk,bkc->b", of_template, placed**2)
        )
        variance = np.maximum(left / (2 * total), _SMALLEST)
    return placed


def identify(placed: NDArray, points: NDArray, valid: NDArray[np.bool_], farthest: float) -> NDArray[np.int64]:
    """Which point of its image each template point is: (B, K), NONE where none is within `farthest` of where it drifted.

    In each image the assignment of least total distance.
    """
    found = np.full(placed.shape[:2], NONE, np.int64)
    for b, (here, there, good) in enumerate(zip(placed, points, valid, strict=True)):
        index = np.flatnonzero(good)
        distance = np.linalg.norm(here[:, None] - there[None, index], axis=-1)
        # What is too far costs the same however far it is, so that it never pulls another pair apart.
        k, n = linear_sum_assignment(np.minimum(distance, 2 * farthest))
        near = distance[k, n] <= farthest
        found[b, k[near]] = index[n[near]]
    return found
