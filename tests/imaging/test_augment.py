"""Random views: determined by the seed, with a map that matches the transformed picture."""

from __future__ import annotations

import dataclasses
import typing
import warnings

import numpy as np
import pytest

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.composites import moved_placement
from ray_kplm.imaging.crops import letterbox
from ray_kplm.imaging.view_parameters import draw_views
from ray_kplm.ranges import range_of

SIZE = 64
NO_COLOUR = {
    "brightness": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "colour_share": 0.0,
    "blur_share": 0.0,
    "noise_share": 0.0,
}
NO_MOTION = {"scale": (1.0, 1.0), "translate": 0.0, "rotate": 0.0}


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
def test_a_view_depends_on_the_seed_alone(warp):
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
def test_the_map_carries_a_dot_to_its_place_in_the_view(flip, crop):
    augment = Augmenter(AugmentConfig(**NO_COLOUR), SIZE)
    width, height = crop
    for seed in range(20):
        dot = np.array([width, height]) * np.random.default_rng(seed).uniform(0.38, 0.62, 2)
        view = augment(blob(width, height, dot, sigma=2.0 * max(crop) / SIZE), seed, flip)
        assert view.picture.shape == (SIZE, SIZE, 3)
        assert np.linalg.norm(centre_of_mass(view.picture) - coordinates.apply(view.crop_to_view, dot)) < 0.15, seed


def test_only_a_flip_makes_the_map_a_reflection():
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
        shifts.append((coordinates.apply(affine, np.array([middle, middle])) - middle) / SIZE)
    rounding = 0.5 / SIZE + 1e-4
    for values, low, high, slack in (
        (scales, 0.9, 1.3, 1e-4),
        (angles, -25.0, 25.0, 1e-2),
        (np.ravel(shifts), -0.1, 0.1, rounding),
    ):
        assert low - slack <= np.min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < np.max(values) <= high + slack


def test_without_ranges_a_view_is_the_letterboxed_crop():
    view = Augmenter(AugmentConfig(**NO_COLOUR, **NO_MOTION), SIZE)(photo(), 1, False)
    expected, to_input = letterbox(photo(), SIZE)
    np.testing.assert_allclose(view.picture.astype(int), expected, atol=2)  # places are rounded to 32nds of a pixel
    np.testing.assert_allclose(view.crop_to_view, to_input, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_without_ranges_a_picture_of_the_views_size_stays_as_it_is(flip):
    picture = np.ascontiguousarray(photo()[:SIZE, :SIZE])
    view = Augmenter(AugmentConfig(**NO_COLOUR, **NO_MOTION), SIZE)(picture, 1, flip)
    np.testing.assert_array_equal(view.picture, picture[:, ::-1] if flip else picture)


def test_without_ranges_a_flipped_view_is_the_mirrored_crop():
    view = Augmenter(AugmentConfig(**NO_COLOUR, **NO_MOTION), SIZE)(photo(), 1, True)
    expected, to_input = letterbox(photo(), SIZE)
    np.testing.assert_allclose(view.picture.astype(int), expected[:, ::-1], atol=2)
    xy = np.array([[10.0, 20.0], [50.0, 3.0]])
    expected_xy = coordinates.mirrored(coordinates.apply(to_input, xy), SIZE)
    np.testing.assert_allclose(coordinates.apply(view.crop_to_view, xy), expected_xy, atol=1e-4)


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
    augment = Augmenter(AugmentConfig(**NO_MOTION, **(NO_COLOUR | change)), SIZE)
    plain, _ = letterbox(photo(), SIZE)
    changes = [np.abs(augment(photo(), seed, False).picture.astype(int) - plain) for seed in range(12)]
    assert sum(change.mean() > 0.4 for change in changes) >= 8
    assert max(change.max() for change in changes) <= largest + 1


def test_configured_shares_are_the_shares_of_views():
    augment = Augmenter(AugmentConfig(**NO_MOTION, **(NO_COLOUR | {"noise_share": 0.25, "noise": 0.2})), SIZE)
    plain = photo()[:SIZE, :SIZE]
    changed = sum(not np.array_equal(augment(plain, seed, False).picture, plain) for seed in range(200))
    assert 30 <= changed <= 70


def test_the_crop_is_not_changed():
    crop = np.full((SIZE, SIZE, 3), 100, np.uint8)
    Augmenter(AugmentConfig(), SIZE)(crop, 3, True)
    assert (crop == 100).all()


def pasting(share: float) -> Augmenter:
    return Augmenter(AugmentConfig(**NO_COLOUR, **NO_MOTION, paste=share), SIZE)


@pytest.mark.parametrize("seed", range(8))
def test_a_pasted_object_lies_where_the_map_says_and_its_background_is_the_other_image(seed):
    picture = np.full((SIZE, SIZE, 3), 20, np.uint8)
    picture[24:29, 30:35] = 250
    other = np.full((SIZE, SIZE, 3), 120, np.uint8)
    boxed = Boxed(np.array([16.0, 16, 48, 40]), other, np.array([20.0, 20, 40, 40]))
    view = pasting(1.0)(picture, seed, False, boxed=boxed)
    bright = np.clip(view.picture.astype(int) - 150, 0, None).astype(np.uint8)
    np.testing.assert_allclose(
        centre_of_mass(bright), coordinates.apply(view.crop_to_view, np.array([[32, 26]]))[0], atol=0.8
    )
    centre = coordinates.apply(view.crop_to_view, np.array([[32.0, 28]]))[0]
    corner = np.where(centre > SIZE / 2, 1, SIZE - 2)
    assert abs(int(view.picture[corner[1], corner[0], 0]) - 120) <= 6


def test_objects_are_pasted_in_a_share_of_the_views_only_and_never_without_boxes():
    boxed = Boxed(np.array([16.0, 16, 48, 40]), photo()[:64, :64], np.array([20.0, 20, 40, 40]))
    make, plain = pasting(0.5), pasting(0.0)
    views = [(make(photo(), seed, False, boxed=boxed), plain(photo(), seed, False)) for seed in range(60)]
    moved = np.mean([not np.array_equal(a.picture, b.picture) for a, b in views])
    assert 0.3 < moved < 0.7
    np.testing.assert_array_equal(make(photo(), 3, True).picture, plain(photo(), 3, True).picture)


def test_a_view_does_not_depend_on_the_others_of_its_batch():
    augment = Augmenter(AugmentConfig(warp=0.06), SIZE)
    seeds, flip = np.arange(40), np.arange(40) % 3 == 0
    pictures = [photo()[:, i:] for i in range(40)]
    boxed = [
        Boxed(np.array([10.0, 16, 28, 40]), photo(), np.array([20.0, 20, 40, 40])) if i % 2 else None for i in seeds
    ]
    batch = augment.views(draw_views(augment.config, seeds, flip), pictures, boxed=boxed)
    for i in (0, 7, 33):
        view = augment(pictures[i], int(seeds[i]), bool(flip[i]), boxed=boxed[i])
        np.testing.assert_array_equal(batch.picture[i], view.picture)
        np.testing.assert_array_equal(batch.crop_to_view[i], view.crop_to_view)
        np.testing.assert_array_equal(batch.shifts[i], view.shifts)


def test_images_are_asked_for_one_by_one():
    """Then each can be decoded just before it is used."""
    augment, log = Augmenter(AugmentConfig(), SIZE), []

    def boxes():
        for number in range(3):
            log.append(f"box {number}")
            yield None

    def pictures():
        for number in range(3):
            log.append(f"image {number}")
            yield photo()

    augment.views(draw_views(augment.config, np.arange(3), np.zeros(3, bool)), pictures(), boxed=boxes())
    assert log == [f"{what} {number}" for number in range(3) for what in ("image", "box")]


def test_pasted_objects_stay_inside_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = rng.uniform(0, 30, 2)
        box = np.concatenate([low, low + rng.uniform(8, 33, 2)])
        placed = coordinates.apply(moved_placement(box, SIZE, rng.uniform(-0.2, 0.2, 2)), box.reshape(2, 2))
        assert placed.min() >= -1e-6
        assert placed.max() <= SIZE - 1 + 1e-6


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AugmentConfig) if field.name != "extra"])
def test_both_ends_of_the_range_of_an_option_give_pictures(name):
    hint = typing.get_type_hints(AugmentConfig, include_extras=True)[name]
    allowed = range_of(hint)
    picture = np.random.default_rng(5).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    shares = dict.fromkeys(("colour_share", "blur_share", "noise_share"), 1.0)
    pairs = [(allowed.low, allowed.high), (allowed.low, allowed.low), (allowed.high, allowed.high)]
    values = pairs if typing.get_origin(hint) is tuple else [allowed.low, allowed.high]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in values:
            augment = Augmenter(dataclasses.replace(AugmentConfig(**shares), **{name: value}), 64)
            views = [augment(picture, seed, False) for seed in range(4)]
            assert all(np.isfinite(view.crop_to_view).all() and np.isfinite(view.shifts).all() for view in views)
            if name not in ("brightness", "contrast"):  # which may end in black or grey
                assert any(np.ptp(view.picture) > 0 for view in views)
