"""Coherent Point Drift: match the points of many images to one template (Myronenko & Song, PAMI 2010; thesis 4.2.4).

The template points are centres of Gaussians that move together onto an image's points: first by a similarity (rotation, uniform
scale, translation), then by an affine map, then by a smooth non-rigid motion. Starting with an affine map would mirror the
template or flatten it where points are missing; a similarity cannot. All images of a batch are aligned at once.

Axes: B images, K template points, N image points (padded).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ray_kplm.schemas import NONE

Floats = NDArray[np.float64]
_MIN_VARIANCE = 1e-8
"""Least variance of the Gaussians, in units of the template's spread squared."""
_MAX_FIRST_VARIANCE, _MAX_FIRST_VARIANCE_NONRIGID = 0.3, 0.1
"""Upper limits of the initial variance of the similarity and of the non-rigid motion, in the same units.

The paper starts with the mean squared distance of all points. Nearly all pairs then weigh the same, and the template shrinks to
a spot and turns at random.
"""
_MIN_AREA_RATIO = 1e-3
"""A template whose area shrinks to this share of its own is treated as collapsed to a line."""
_LinearSolver = Callable[[Floats, Floats], Floats]
"""The linear part (B, 2, 2) of a map from the weighted products image x template and template x template (B, 2, 2)."""


@dataclass(frozen=True)
class DriftOptions:
    """Parameters of Coherent Point Drift.

    Attributes:
        outliers: Expected share of an image's points that match no template point, 0 < share < 1.
        width: Width of the kernel that makes neighbours move alike (the paper's beta), in units of the template's spread.
        stiffness: Weight of the penalty on motion other than the affine map (the paper's lambda).
        iterations: Iterations of each of the three stages (similarity, affine, non-rigid); more change little.
    """

    outliers: float = 0.1
    width: float = 2.0
    stiffness: float = 3.0
    iterations: int = 20


def align(
    template: NDArray[Any], points: NDArray[Any], valid: NDArray[np.bool_], options: DriftOptions = DriftOptions()
) -> Floats:
    """Align the template with the points of each image.

    Args:
        template: (K, 2), input frame.
        points: (B, N, 2), input frame, padded.
        valid: (B, N), which points exist.
        options: Parameters of Coherent Point Drift.

    Returns:
        The template points' positions in each image, (B, K, 2). For an image with fewer than three valid points it is the
        template, translated to the centroid of these.
    """
    template = np.asarray(template, np.float64)
    template_centroid, unit = template.mean(axis=0), template.std()
    start = (template - template_centroid) / unit
    weight = np.asarray(valid, np.float64)
    count = np.maximum(weight.sum(axis=1), 1)[:, None]
    centroid = (points * weight[..., None]).sum(axis=1) / count
    x = np.where(valid[..., None], (points - centroid[:, None]) / unit, 0.0)
    enough = weight.sum(axis=1) >= 3
    aligned = np.repeat(start[None], len(x), axis=0)
    if enough.any():
        aligned[enough] = _register(aligned[enough], x[enough], weight[enough], options)
    rescaled: Floats = aligned * unit + centroid[:, None]
    return rescaled


def _register(start: Floats, x: Floats, weight: Floats, options: DriftOptions) -> Floats:
    """Return the start (B, K, 2) moved by the similarity, then the affine map, then the non-rigid motion: (B, K, 2).

    A stage that mirrors or flattens the template is skipped: few points, or points of another object, have such fits.
    """
    variance = np.minimum(_mean_variance(start, x, weight), _MAX_FIRST_VARIANCE)
    similar, variance = _fit_linear(_similarity, start, start, x, weight, variance, options)
    affine, _ = _fit_linear(_affine, start, similar, x, weight, variance, options)
    affine = np.where(_is_degenerate(start, affine), similar, affine)
    nonrigid = _fit_nonrigid(affine, x, weight, options)
    return np.where(_is_degenerate(start, nonrigid), affine, nonrigid)


def _is_degenerate(start: Floats, aligned: Floats) -> NDArray[np.bool_]:
    """Return whether the affine map nearest to start (B, K, 2) -> aligned is a reflection or flattens the start: (B, 1, 1)."""
    centred = aligned - aligned.mean(axis=1, keepdims=True)
    cross, spread = (np.einsum("bkc,bkd->bcd", points, start) for points in (centred, start))
    degenerate: NDArray[np.bool_] = np.linalg.det(cross) <= _MIN_AREA_RATIO * np.linalg.det(spread)
    return degenerate[:, None, None]


def _posterior(aligned: Floats, x: Floats, weight: Floats, variance: Floats, options: DriftOptions) -> Floats:
    """Return the probability that each point (N) belongs to each Gaussian (K): (B, K, N). The rest to 1 is the outliers'."""
    squared = ((aligned[:, :, None] - x[:, None]) ** 2).sum(axis=-1)
    near: Floats = np.exp(-squared / (2 * variance[:, None, None]))
    points = weight.sum(axis=1)
    noise = 2 * np.pi * variance * options.outliers / (1 - options.outliers) * aligned.shape[1] / points
    posterior: Floats = near * weight[:, None] / (near.sum(axis=1) + noise[:, None])[:, None]
    return posterior


def _mean_variance(aligned: Floats, x: Floats, weight: Floats) -> Floats:
    """Return the mean squared distance, per axis, of all Gaussians to all points: (B,)."""
    squared: Floats = ((aligned[:, :, None] - x[:, None]) ** 2).sum(axis=-1) * weight[:, None]
    mean: Floats = squared.sum(axis=(1, 2)) / (2 * aligned.shape[1] * weight.sum(axis=1))
    return mean


def _fit_linear(
    solve: _LinearSolver,
    start: Floats,
    aligned: Floats,
    x: Floats,
    weight: Floats,
    variance: Floats,
    options: DriftOptions,
) -> tuple[Floats, Floats]:
    """Fit each image's best map of the start (B, K, 2) by expectation maximisation.

    Args:
        solve: Gives the linear part of the map.
        start: (B, K, 2), the points that the map moves.
        aligned: (B, K, 2), the initial positions of the Gaussians.
        x: (B, N, 2), the image's points.
        weight: (B, N), 1 for valid points, 0 for padding.
        variance: (B,), the initial variance of the Gaussians.
        options: Parameters of Coherent Point Drift.

    Returns:
        The final positions (B, K, 2) and the final variance (B,).
    """
    for _ in range(options.iterations):
        p = _posterior(aligned, x, weight, variance, options)
        template_mass, point_mass = p.sum(axis=2), p.sum(axis=1)
        total = np.maximum(template_mass.sum(axis=1), 1e-12)[:, None]
        mean_x = np.einsum("bn,bnc->bc", point_mass, x) / total
        mean_y = np.einsum("bk,bkc->bc", template_mass, start) / total
        xc, yc = x - mean_x[:, None], start - mean_y[:, None]
        cross = np.einsum("bnc,bkn,bkd->bcd", xc, p, yc)
        spread = np.einsum("bkc,bk,bkd->bcd", yc, template_mass, yc) + 1e-9 * np.eye(2)
        linear = solve(cross, spread)
        aligned = np.einsum("bcd,bkd->bkc", linear, yc) + mean_x[:, None]
        residual = (
            np.einsum("bn,bnc->b", point_mass, xc**2)
            - 2 * np.einsum("bcd,bcd->b", cross, linear)
            + np.einsum("bcd,bde,bce->b", linear, spread, linear)
        )
        variance = np.maximum(residual / (2 * total[:, 0]), _MIN_VARIANCE)
    return aligned, variance


def _similarity(cross: Floats, spread: Floats) -> Floats:
    """Return the rotation with uniform scale of least squared error: (B, 2, 2).

    In the plane it has a closed form without reflections; the paper (Fig. 2) uses a singular value decomposition, which serves
    any dimension.
    """
    size = np.trace(spread, axis1=1, axis2=2)
    along = (cross[:, 0, 0] + cross[:, 1, 1]) / size
    across = (cross[:, 1, 0] - cross[:, 0, 1]) / size
    return np.stack([along, -across, across, along], axis=-1).reshape(-1, 2, 2)


def _affine(cross: Floats, spread: Floats) -> Floats:
    """Return the linear map of least squared error: (B, 2, 2) (paper, Fig. 3)."""
    return cross @ np.linalg.inv(spread)


def _fit_nonrigid(start: Floats, x: Floats, weight: Floats, options: DriftOptions) -> Floats:
    """Return each image's start (B, K, 2) after a smooth motion in which neighbours move alike: (B, K, 2) (paper, Fig. 4)."""
    squared = ((start[:, :, None] - start[:, None]) ** 2).sum(axis=-1)
    kernel = np.exp(-squared / (2 * options.width**2))
    aligned, variance = start, np.minimum(_mean_variance(start, x, weight), _MAX_FIRST_VARIANCE_NONRIGID)
    for _ in range(options.iterations):
        p = _posterior(aligned, x, weight, variance, options)
        template_mass, point_mass = p.sum(axis=2), p.sum(axis=1)
        total = np.maximum(template_mass.sum(axis=1), 1e-12)
        pull = np.einsum("bkn,bnc->bkc", p, x)
        stiff = (options.stiffness * variance)[:, None, None] * np.eye(start.shape[1])
        move = np.linalg.solve(template_mass[:, :, None] * kernel + stiff, pull - template_mass[..., None] * start)
        aligned = start + kernel @ move
        residual = (
            np.einsum("bn,bnc->b", point_mass, x**2)
            - 2 * np.einsum("bkc,bkc->b", pull, aligned)
            + np.einsum("bk,bkc->b", template_mass, aligned**2)
        )
        variance = np.maximum(residual / (2 * total), _MIN_VARIANCE)
    return aligned


def match_points(
    aligned: NDArray[Any], points: NDArray[Any], valid: NDArray[np.bool_], max_distance: float
) -> NDArray[np.int64]:
    """Match the aligned template points with the points of each image, one to one, at the least total distance.

    Args:
        aligned: (B, K, 2), template points as `align` returns them.
        points: (B, N, 2), in the same frame, padded.
        valid: (B, N), which points exist.
        max_distance: Pairs farther apart are no matches.

    Returns:
        The index of each template point's match in its image, (B, K); NONE where it has none.
    """
    matched = np.full(aligned.shape[:2], NONE, np.int64)
    for b, (template_xy, image_xy, usable) in enumerate(zip(aligned, points, valid, strict=True)):
        index = np.flatnonzero(usable)
        distance = np.linalg.norm(template_xy[:, None] - image_xy[None, index], axis=-1)
        # All pairs that are too far apart cost the same, so that none of them changes the other pairs.
        k, n = linear_sum_assignment(np.minimum(distance, 2 * max_distance))
        near = distance[k, n] <= max_distance
        matched[b, k[near]] = index[n[near]]
    return matched
