"""Random views: determined by the seed, with a map that matches the transformed picture."""

from __future__ import annotations

import dataclasses
import itertools
import typing
import warnings

import albumentations as A
import numpy as np
import pytest

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.composites import random_placement
from ray_kplm.imaging.crops import letterbox
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
    np.testing.assert_array_equal(view.picture, expected)
    np.testing.assert_allclose(view.crop_to_view, to_input, atol=1e-5)


def test_without_ranges_a_flipped_view_is_the_mirrored_crop():
    view = Augmenter(AugmentConfig(**NO_COLOUR, **NO_MOTION), SIZE)(photo(), 1, True)
    expected, to_input = letterbox(photo(), SIZE)
    np.testing.assert_array_equal(view.picture, expected[:, ::-1])
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
    plain, _ = letterbox(photo(), SIZE)
    changed = sum(not np.array_equal(augment(photo(), seed, False).picture, plain) for seed in range(200))
    assert 30 <= changed <= 70


@pytest.fixture
def applied(monkeypatch) -> list[tuple[A.BasicTransform, dict]]:
    """What albumentations applies, in order, each with the parameters that it drew."""
    seen: list[tuple[A.BasicTransform, dict]] = []
    apply = A.BasicTransform.apply_with_params

    def record(self, params, *args, **kwargs):
        seen.append((self, dict(params)))
        return apply(self, params, *args, **kwargs)

    monkeypatch.setattr(A.BasicTransform, "apply_with_params", record)
    return seen


def drawn(applied: list[tuple[A.BasicTransform, dict]], side: int) -> dict[str, float]:
    """The parameters of one view by name; those of a transform that was not applied are missing."""
    values = {"colour applied": 0.0, "blur applied": 0.0, "noise applied": 0.0}
    middle = np.array([(side - 1) / 2, (side - 1) / 2, 1.0])
    for transform, params in applied:
        match transform:
            case A.Affine():
                shift = (params["matrix"] @ middle - middle)[:2] / side
                values |= {"scale": params["scale"]["x"], "x-shift": shift[0], "y-shift": shift[1]}
                values["rotation"] = params["rotate"]
            case A.ColorJitter() if transform.saturation == (1, 1):
                values |= {"brightness": params["brightness"], "contrast": params["contrast"]}
            case A.ColorJitter():
                values |= {"colour applied": 1.0, "saturation": params["saturation"], "hue": params["hue"]}
            case A.GaussianBlur():
                kernel = np.ravel(params["kernel"])
                offset = np.arange(len(kernel)) - len(kernel) // 2
                values |= {"blur applied": 1.0, "blur sigma": np.sqrt((kernel * offset**2).sum() / kernel.sum())}
            case A.GaussNoise():
                level = params["noise_map"].std() / 255
                values |= {"noise applied": 1.0, "noise level": level, "per channel": float(transform.per_channel)}
    return values


VIEWS = 2000
WIDE = AugmentConfig(warp=0.05, noise=0.1, blur=2.0)
RANGES = {
    "scale": (*WIDE.scale, 1e-6),
    "x-shift": (-WIDE.translate, WIDE.translate, 0.5 / SIZE),  # whole pixels
    "y-shift": (-WIDE.translate, WIDE.translate, 0.5 / SIZE),
    "rotation": (-WIDE.rotate, WIDE.rotate, 1e-6),
    "brightness": (*WIDE.brightness, 1e-6),
    "contrast": (*WIDE.contrast, 1e-6),
    "saturation": (*WIDE.saturation, 1e-6),
    "hue": (*WIDE.hue, 1e-6),
    "blur sigma": (0.0, WIDE.blur, 0.05),  # of a sampled kernel
    "noise level": (0.0, WIDE.noise, 0.1 * WIDE.noise),  # of a map of noise
}
SHARES = {"colour applied": WIDE.colour_share, "blur applied": WIDE.blur_share, "noise applied": WIDE.noise_share}


def test_the_parameters_of_a_view_are_independent_and_distributed_as_configured(applied):
    augment, rows = Augmenter(WIDE, SIZE), []
    for seed in range(VIEWS):
        applied.clear()
        shifts = augment(photo(), seed, seed % 2 == 0).shifts
        rows.append(drawn(applied, SIZE) | {"warp x": shifts[8, 8, 0], "warp y": shifts[8, 8, 1]})
    columns = {name: np.array([row.get(name, np.nan) for row in rows]) for row in rows for name in row}
    assert len(columns) == 16

    # Where a transform was not applied its parameters count as their means, which correlate with nothing. The standard
    # deviation of a correlation is then 0.022 for every pair.
    centred = {name: np.nan_to_num(values - np.nanmean(values)) for name, values in columns.items()}
    correlated = {
        f"{a} and {b}": round(float(r), 2)
        for a, b in itertools.combinations(centred, 2)
        if abs(r := np.corrcoef(centred[a], centred[b])[0, 1]) >= 0.1
    }
    assert not correlated

    for name, (low, high, slack) in RANGES.items():
        values = columns[name][np.isfinite(columns[name])]
        assert low - slack <= values.min() < low + 0.05 * (high - low) + slack, name
        assert high - 0.05 * (high - low) - slack < values.max() <= high + slack, name
        off = abs(values.mean() - (low + high) / 2) / (high - low)
        assert off < 4 / np.sqrt(12 * len(values)) + slack / (high - low), name
    per_channel = columns["per channel"][np.isfinite(columns["per channel"])]
    for name, share, values in [(n, s, columns[n]) for n, s in SHARES.items()] + [("per channel", 0.5, per_channel)]:
        assert abs(values.mean() - share) < 3 * np.sqrt(share * (1 - share) / len(values)), name


def test_a_view_and_its_mirror_image_have_the_same_parameters(applied):
    augment = Augmenter(WIDE, SIZE)
    for seed in range(20):
        both = []
        for flip in (False, True):
            applied.clear()
            view = augment(photo(), seed, flip)
            both.append(drawn(applied, SIZE) | {"warp": view.shifts[8, 8].tolist()})
        assert both[0] == both[1]


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


def test_pasted_objects_stay_inside_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = rng.uniform(0, 30, 2)
        box = np.concatenate([low, low + rng.uniform(8, 33, 2)])
        placed = coordinates.apply(random_placement(box, SIZE, 0.2, rng), box.reshape(2, 2))
        assert placed.min() >= -1e-6
        assert placed.max() <= SIZE - 1 + 1e-6


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AugmentConfig)])
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
