"""Warps: points move with the picture."""

import numpy as np
import pytest

from ray_kplm.imaging.warp import IDENTITY_SHIFT, displace, random_warp

SIDE = 96


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
        warped, shifts = random_warp(dot(*xy), share, np.random.default_rng(seed))
        found = displace(xy[None, None], shifts[None], SIDE)[0, 0]
        assert np.linalg.norm(found - centre(warped)) < 0.6, seed  # the dot itself is bent a little
        moves.append(np.abs(found - xy).max())
    assert 0.5 * share * SIDE < max(moves) < 1.5 * share * SIDE


def test_the_largest_warp_does_not_fold():
    for seed in range(100):
        _, shifts = random_warp(np.zeros((SIDE, SIDE, 3), np.uint8), 0.08, np.random.default_rng(seed))
        step = (SIDE - 1) / (len(shifts) - 1)
        assert (np.diff(shifts[..., 0], axis=1) > -step).all()
        assert (np.diff(shifts[..., 1], axis=0) > -step).all()


def test_a_warp_moves_parts_against_each_other():
    _, shifts = random_warp(np.zeros((SIDE, SIDE, 3), np.uint8), 0.05, np.random.default_rng(0))
    at = np.linspace(0, 1, len(shifts))
    affine = np.stack([np.ones((len(at), len(at))), *np.meshgrid(at, at)], -1).reshape(-1, 3)
    left = shifts.reshape(-1, 2) - affine @ np.linalg.lstsq(affine, shifts.reshape(-1, 2), rcond=None)[0]
    assert left.std() > 0.01 * SIDE


def test_identity_shifts_do_not_move_points():
    xy = np.random.default_rng(0).uniform(-10, 110, (2, 5, 2))
    np.testing.assert_array_equal(displace(xy, np.stack([IDENTITY_SHIFT, IDENTITY_SHIFT]), SIDE), xy)
    picture = dot(30, 40)
    np.testing.assert_array_equal(random_warp(picture, 0.0, np.random.default_rng(0))[0], picture)
