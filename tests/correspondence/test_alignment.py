"""Coherent Point Drift on warps that are known, with points missing and points too many."""

import numpy as np
import pytest

from ray_kplm.contracts import NONE
from ray_kplm.correspondence.alignment import Drift, align, identify

# 13 points like those of a face: brows, eyes, nose, mouth, chin; 256 px.
TEMPLATE = np.array(
    [[70, 80], [110, 78], [146, 78], [186, 80], [80, 105], [112, 106], [144, 106], [176, 105], [128, 145], [98, 180],
     [158, 180], [128, 172], [128, 225]], float,
)  # fmt: skip
K = len(TEMPLATE)


def rotation(degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def affine(rng, strength: float = 1.0):
    """A random affine view of the template: rotation, scale, squeeze and shift."""
    linear = rotation(rng.uniform(-25, 25) * strength) @ np.diag(1 + strength * rng.uniform(-0.25, 0.25, 2))
    return (TEMPLATE - 128) @ linear.T + 128 + strength * rng.uniform(-25, 25, 2)


def bent(rng):
    """An affine view, bent smoothly by up to some 12 px."""
    points = affine(rng, 0.6)
    phase, wave = rng.uniform(0, 6, 2), rng.uniform(0.01, 0.02, 2)
    return points + 12 * np.sin(points[:, ::-1] * wave + phase)


def image(rng, view: np.ndarray, missing: int, extra: int, noise: float = 1.0):
    """Points of an image in random order, padded, and the template point of each (NONE: an outlier)."""
    stay = rng.permutation(K)[missing:]
    clutter = rng.uniform(20, 236, (extra, 2))
    clutter = clutter[np.linalg.norm(clutter[:, None] - view, axis=-1).min(axis=1) > 15]
    points = np.concatenate([view[stay] + rng.normal(0, noise, (len(stay), 2)), clutter])
    truth = np.concatenate([stay, np.full(len(clutter), NONE)])
    order = rng.permutation(len(points))
    padded = np.zeros((40, 2))
    padded[: len(points)] = points[order]
    return padded, np.arange(40) < len(points), truth[order]


def share_right(make, missing: int, extra: int, images: int = 60) -> float:
    """Of the template points that an image has, the share that gets its own point."""
    rng = np.random.default_rng(missing * 10 + extra)
    made = [image(rng, make(rng), missing, extra) for _ in range(images)]
    points, valid = np.stack([m[0] for m in made]), np.stack([m[1] for m in made])
    found = identify(align(TEMPLATE, points, valid), points, valid, farthest=20)
    right = total = 0
    for assigned, (_, _, truth) in zip(found, made, strict=True):
        for k in range(K):
            if k in truth:
                total += 1
                right += assigned[k] != NONE and truth[assigned[k]] == k
    return right / total


@pytest.mark.parametrize(
    ("make", "missing", "extra", "least"),
    [(affine, 0, 0, 0.97), (affine, 3, 0, 0.93), (affine, 0, 5, 0.93), (bent, 0, 0, 0.97), (bent, 2, 3, 0.9)],
)
def test_points_find_their_template_points(make, missing, extra, least):
    assert share_right(make, missing, extra) >= least


def test_a_bend_needs_more_than_an_affine_map():
    rng = np.random.default_rng(5)
    views = np.stack([bent(rng) for _ in range(30)])
    valid = np.ones(views.shape[:2], bool)
    stiff = np.linalg.norm(align(TEMPLATE, views, valid, Drift(stiffness=1e6)) - views, axis=-1).mean()
    free = np.linalg.norm(align(TEMPLATE, views, valid) - views, axis=-1).mean()
    assert free < 0.4 * stiff


def test_a_missing_point_is_placed_among_its_neighbours():
    rng = np.random.default_rng(6)
    errors = []
    for _ in range(30):
        view = affine(rng)
        points, valid, truth = image(rng, view, missing=1, extra=0)
        gone = next(k for k in range(K) if k not in truth)
        errors.append(np.linalg.norm(align(TEMPLATE, points[None], valid[None])[0, gone] - view[gone]))
    assert np.median(errors) < 6


def test_each_image_is_aligned_on_its_own():
    rng = np.random.default_rng(7)
    made = [image(rng, bent(rng), 2, 3) for _ in range(5)]
    points, valid = np.stack([m[0] for m in made]), np.stack([m[1] for m in made])
    together = align(TEMPLATE, points, valid)
    for b in range(5):
        np.testing.assert_allclose(align(TEMPLATE, points[b : b + 1], valid[b : b + 1])[0], together[b], atol=1e-6)


def test_too_few_points_leave_the_template_as_it_is():
    points, valid = np.zeros((1, 4, 2)), np.array([[True, True, False, False]])
    points[0, :2] = [[100, 100], [120, 140]]
    placed = align(TEMPLATE, points, valid)[0]
    np.testing.assert_allclose(placed - placed.mean(0), TEMPLATE - TEMPLATE.mean(0))
    np.testing.assert_allclose(placed.mean(0), [110, 120])


def test_what_is_too_far_is_no_match():
    placed = np.array([[[10.0, 10.0], [50.0, 50.0]]])
    points = np.array([[[11.0, 10.0], [90.0, 90.0], [50.0, 50.0]]])
    assert identify(placed, points, np.array([[True, True, True]]), 5).tolist() == [[0, 2]]
    assert identify(placed, points, np.array([[True, True, False]]), 5).tolist() == [[0, NONE]]
