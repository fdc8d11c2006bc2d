"""Random views: decided by the seed, and the returned map is what really happened to the picture."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import frames
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.imaging.crops import letterbox

SIZE = 64
NO_COLOUR = {
    "brightness": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "colour_share": 0.0,
    "blur_share": 0.0,
    "noise_share": 0.0,
}
STILL = {"scale": (1.0, 1.0), "translate": 0.0, "rotate": 0.0}


def photo() -> np.ndarray:
    """uint8 (90, 70, 3), structured, coloured, far from black and white."""
    coarse = np.random.default_rng(0).integers(60, 190, (9, 7, 3), dtype=np.uint8)
    return coarse.repeat(10, axis=0).repeat(10, axis=1)


def blob(width: int, height: int, xy, sigma: float) -> np.ndarray:
    columns, rows = np.arange(width), np.arange(height)
    bell = np.exp(-0.5 * (((columns - xy[0]) / sigma) ** 2 + ((rows[:, None] - xy[1]) / sigma) ** 2))
    return np.rint(255 * bell)[..., None].repeat(3, axis=2).astype(np.uint8)


def centre_of_mass(picture: np.ndarray) -> np.ndarray:
    weight = picture.astype(np.float64).sum(axis=2)
    rows, columns = np.indices(weight.shape)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("warp", [0.0, 0.08])
def test_a_seed_decides_whatever_was_asked_before(warp):
    one, other = (Augmenter(AugmentConfig(warp=warp), SIZE) for _ in range(2))
    asked = [(seed, flip) for seed in range(6) for flip in (False, True)]
    first = {a: one(photo(), *a) for a in asked}
    for a in reversed(asked):
        view = other(photo(), *a)
        for name, value in vars(view).items():
            np.testing.assert_array_equal(value, getattr(first[a], name))
    assert len({view.picture.tobytes() for view in first.values()}) == len(asked)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [(64, 64), (120, 90), (35, 50)])
def test_the_map_carries_a_dot_to_where_it_is(flip, crop):
    augment = Augmenter(AugmentConfig(**NO_COLOUR), SIZE)
    width, height = crop
    for seed in range(20):
        dot = np.array([width, height]) * np.random.default_rng(seed).uniform(0.38, 0.62, 2)
        view = augment(blob(width, height, dot, sigma=2.0 * max(crop) / SIZE), seed, flip)
        assert view.picture.shape == (SIZE, SIZE, 3)
        assert np.linalg.norm(centre_of_mass(view.picture) - frames.apply(view.crop_to_view, dot)) < 0.15, seed


def test_only_a_flip_turns_the_map_inside_out():
    augment = Augmenter(AugmentConfig(), SIZE)
    for seed in range(10):
        assert np.linalg.det(augment(photo(), seed, False).crop_to_view[:, :2]) > 0
        assert np.linalg.det(augment(photo(), seed, True).crop_to_view[:, :2]) < 0


@pytest.mark.parametrize("flip", [False, True])
def test_scale_rotation_and_shift_stay_in_their_ranges_and_use_them(flip):
    config = AugmentConfig(scale=(0.9, 1.3), translate=0.1, rotate=25.0)
    augment = Augmenter(config, SIZE)
    middle = (SIZE - 1) / 2
    scales, angles, shifts = [], [], []
    for seed in range(150):
        affine = augment(np.zeros((SIZE, SIZE, 3), np.uint8), seed, flip).crop_to_view
        linear = affine[:, :2] * ([-1, 1] if flip else [1, 1])
        scales.append(np.sqrt(np.linalg.det(linear)))
        angles.append(np.degrees(np.arctan2(linear[1, 0], linear[0, 0])))
        np.testing.assert_allclose(linear @ linear.T, scales[-1] ** 2 * np.eye(2), atol=1e-4)  # a similarity
        shifts.append((frames.apply(affine, np.array([middle, middle])) - middle) / SIZE)
    rounding = 0.5 / SIZE + 1e-4
    for values, low, high, slack in (
        (scales, 0.9, 1.3, 1e-4),
        (angles, -25.0, 25.0, 1e-2),
        (np.ravel(shifts), -0.1, 0.1, rounding),
    ):
        assert low - slack <= np.min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < np.max(values) <= high + slack


def test_without_ranges_a_view_is_the_letterboxed_crop():
    view = Augmenter(AugmentConfig(**NO_COLOUR, **STILL), SIZE)(photo(), 1, False)
    expected, to_input = letterbox(photo(), SIZE)
    np.testing.assert_array_equal(view.picture, expected)
    np.testing.assert_allclose(view.crop_to_view, to_input, atol=1e-5)


def test_without_ranges_a_flipped_view_is_the_mirrored_crop():
    view = Augmenter(AugmentConfig(**NO_COLOUR, **STILL), SIZE)(photo(), 1, True)
    expected, to_input = letterbox(photo(), SIZE)
    np.testing.assert_array_equal(view.picture, expected[:, ::-1])
    xy = np.array([[10.0, 20.0], [50.0, 3.0]])
    expected_xy = frames.mirrored(frames.apply(to_input, xy), SIZE)
    np.testing.assert_allclose(frames.apply(view.crop_to_view, xy), expected_xy, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "largest"),
    [
        ({"brightness": (0.9, 1.1)}, 0.1 * 190),
        ({"contrast": (0.85, 1.3)}, 0.3 * 130),
        ({"colour_share": 1.0}, 255),
        ({"blur_share": 1.0, "blur": 2.0}, 255),
        ({"noise_share": 1.0}, 0.05 * 255 * 6),
    ],
)
def test_each_photometric_change_happens_within_its_range(change, largest):
    augment = Augmenter(AugmentConfig(**STILL, **(NO_COLOUR | change)), SIZE)
    plain, _ = letterbox(photo(), SIZE)
    changes = [np.abs(augment(photo(), seed, False).picture.astype(int) - plain) for seed in range(12)]
    assert sum(change.mean() > 0.4 for change in changes) >= 8
    assert max(change.max() for change in changes) <= largest + 1


def test_shares_are_shares():
    augment = Augmenter(AugmentConfig(**STILL, **(NO_COLOUR | {"noise_share": 0.25, "noise": 0.2})), SIZE)
    plain, _ = letterbox(photo(), SIZE)
    changed = sum(not np.array_equal(augment(photo(), seed, False).picture, plain) for seed in range(200))
    assert 30 <= changed <= 70


def test_the_crop_is_left_alone():
    crop = np.full((SIZE, SIZE, 3), 100, np.uint8)
    Augmenter(AugmentConfig(), SIZE)(crop, 3, True)
    assert (crop == 100).all()
