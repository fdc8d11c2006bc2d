"""Warps: points move with the picture."""

import cv2
import numpy as np
import pytest

from ray_kplm.imaging.reference_views import warp
from ray_kplm.imaging.warp import IDENTITY_SHIFT, displace, node_basis, point_shifts, spread

SIDE = 96


def nodes(share: float, seed: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-share * SIDE, share * SIDE, (count, 4, 4, 2))


def dot(x: float, y: float) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE))
    return np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8))[..., None].repeat(3, 2).astype(np.uint8)


def centre(picture: np.ndarray) -> np.ndarray:
    weight = picture[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("share", [0.02, 0.05, 0.08])
def test_shifts_carry_a_point_to_its_place_in_the_warped_image(share):
    moves = []
    for seed in range(40):
        xy = np.random.default_rng(seed).uniform(25, 70, 2)
        warped, _ = warp(dot(*xy), nodes(share, seed)[0])
        shifts = point_shifts(nodes(share, seed), SIDE)[0]
        found = displace(xy[None, None], shifts[None], SIDE)[0, 0]
        assert np.linalg.norm(found - centre(warped)) < 0.6, seed  # the dot itself is bent a little
        moves.append(np.abs(found - xy).max())
    assert 0.5 * share * SIDE < max(moves) < 1.5 * share * SIDE


def test_the_largest_warp_does_not_fold():
    for shifts in point_shifts(nodes(0.08, 0, 100), SIDE):
        step = (SIDE - 1) / (len(shifts) - 1)
        assert (np.diff(shifts[..., 0], axis=1) > -step).all()
        assert (np.diff(shifts[..., 1], axis=0) > -step).all()


def test_a_warp_moves_parts_against_each_other():
    shifts = point_shifts(nodes(0.05, 0), SIDE)[0]
    at = np.linspace(0, 1, len(shifts))
    affine = np.stack([np.ones((len(at), len(at))), *np.meshgrid(at, at)], -1).reshape(-1, 3)
    left = shifts.reshape(-1, 2) - affine @ np.linalg.lstsq(affine, shifts.reshape(-1, 2), rcond=None)[0]
    assert left.std() > 0.01 * SIDE


def test_identity_shifts_do_not_move_points():
    xy = np.random.default_rng(0).uniform(-10, 110, (2, 5, 2))
    np.testing.assert_array_equal(displace(xy, np.stack([IDENTITY_SHIFT, IDENTITY_SHIFT]), SIDE), xy)
    assert not point_shifts(np.zeros((1, 4, 4, 2)), SIDE).any()


def test_the_shifts_of_a_warp_do_not_depend_on_those_beside_it():
    drawn = nodes(0.08, 3, 70)
    together = point_shifts(drawn, SIDE)
    for i in (0, 31, 32, 69):
        np.testing.assert_array_equal(point_shifts(drawn[i : i + 1], SIDE)[0], together[i])


@pytest.mark.parametrize("side", [64, 96, 256])
def test_nodes_are_interpolated_as_opencv_does(side):
    drawn = nodes(0.05, 1).astype(np.float32)
    basis = node_basis(np.arange(side), side)
    dense = (basis @ spread(drawn, basis)[0].reshape(4, -1)).reshape(side, side, 2)
    np.testing.assert_allclose(dense, cv2.resize(drawn[0], (side, side), interpolation=cv2.INTER_CUBIC), atol=1e-4)


def test_the_shifts_are_those_of_an_inversion_at_full_resolution():
    drawn = nodes(0.06, 2, 50)
    slow = np.stack([warp(np.zeros((SIDE, SIDE, 3), np.uint8), one)[1] for one in drawn])
    off = np.linalg.norm(point_shifts(drawn, SIDE) - slow, axis=-1)
    assert off.mean() < 0.01
    assert np.quantile(off, 0.999) < 0.05
