"""The fast views are those that albumentations makes of the same parameters."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.augment import Augmenter, Boxed, View, _placement
from ray_kplm.imaging.crops import shrunk
from ray_kplm.imaging.reference_views import ReferenceAugmenter
from ray_kplm.imaging.resampling import Resampler
from ray_kplm.imaging.view_parameters import ViewParameters, draw_views
from ray_kplm.imaging.warp import displace

SIZE, VIEWS = 96, 60
PLAIN = {"brightness": (1, 1), "contrast": (1, 1), "colour_share": 0, "blur_share": 0, "noise_share": 0}
STILL = {"scale": (1, 1), "translate": 0, "rotate": 0}
CROPS = [(96, 96), (180, 130), (60, 70)]
"""Width and height: of the views, to be made smaller, to be made larger."""


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A picture with structures of some pixels, as smooth as a photograph."""
    rng = np.random.default_rng(seed)
    coarse, fine = (rng.integers(40, 215, (n, n, 3), dtype=np.uint8) for n in (6, 20))
    made = [cv2.resize(of, (width, height), interpolation=cv2.INTER_CUBIC) for of in (coarse, fine)]
    return cv2.addWeighted(made[0], 0.6, made[1], 0.4, 0)


def views_of(
    config: AugmentConfig, picture: np.ndarray, **boxed: Boxed
) -> tuple[list[View], list[View], ViewParameters]:
    """Views of a picture by both paths, and their parameters."""
    parameters = draw_views(config, np.arange(VIEWS), np.arange(VIEWS) % 2 == 1)
    fast = Augmenter(config, SIZE).views(parameters, [picture] * VIEWS, boxed=[boxed.get("boxed")] * VIEWS)
    slow = ReferenceAugmenter(SIZE)
    reference = [slow(picture, parameters, i, **boxed) for i in range(VIEWS)]
    return [View(*of) for of in zip(fast.picture, fast.crop_to_view, fast.shifts, strict=True)], reference, parameters


def places(view: View, xy: np.ndarray) -> np.ndarray:
    return displace(coordinates.apply(view.crop_to_view.astype(float), xy)[None], view.shifts[None], SIZE)[0]


@pytest.mark.parametrize("share", [0.0, 0.06])
@pytest.mark.parametrize("crop", CROPS)
def test_points_go_to_the_same_places(crop, share):
    fast, reference, _ = views_of(AugmentConfig(warp=share, **PLAIN), photo(*crop))
    xy = np.random.default_rng(0).uniform(0.2, 0.8, (50, 2)) * crop
    off = [np.linalg.norm(places(a, xy) - places(b, xy), axis=1) for a, b in zip(fast, reference, strict=True)]
    assert np.max(off) < 0.05


@pytest.mark.parametrize("share", [0.0, 0.06])
@pytest.mark.parametrize("crop", CROPS)
def test_a_pixel_of_a_view_comes_from_the_same_place(crop, share):
    """The pictures hold their own coordinates, so that a view of one is the map of its places to the crop."""
    width, height = crop
    own = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    config = AugmentConfig(warp=share)
    parameters = draw_views(config, np.arange(VIEWS), np.arange(VIEWS) % 2 == 1)
    input_to_view = parameters.input_to_view(SIZE)
    resampler = Resampler(SIZE, warped=share > 0)
    maps = resampler.maps(np.stack([coordinates.invert(affine) for affine in input_to_view]), parameters.warp * SIZE)
    small, onward = shrunk(own, SIZE)[0], _placement(width, height, SIZE)[1]
    crop_to_input = coordinates.crop_to_input(width, height, SIZE)
    own_places = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)
    for i in range(VIEWS):
        fast = np.empty((SIZE, SIZE, 2), np.float32)
        resampler.resample(small, maps[i], fast, onward)
        nodes = (parameters.warp[i] * SIZE).astype(np.float32)
        before = own_places + cv2.resize(nodes, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        crop_to_view = coordinates.compose(input_to_view[i], crop_to_input)
        exact = coordinates.apply(coordinates.invert(crop_to_view), before)
        inside = ((exact > 2) & (exact < np.array(crop) - 3)).all(axis=-1)
        assert inside.sum() > 500
        off = np.linalg.norm(fast - exact, axis=-1)[inside] * SIZE / max(crop)  # pixels of the input
        assert off.max() < 0.05, i


@pytest.mark.parametrize(("share", "typical", "largest"), [(0.0, 0.2, 4), (0.06, 1.0, 12)])
def test_grey_levels_differ_by_what_the_second_resampling_blurs(share, typical, largest):
    fast, reference, _ = views_of(AugmentConfig(warp=share, **PLAIN), photo(96, 96))
    off = np.stack([np.abs(a.picture.astype(int) - b.picture) for a, b in zip(fast, reference, strict=True)])
    off = off[:, 14:-14, 14:-14]
    assert off.mean() < typical
    assert np.quantile(off, 0.999) <= largest


@pytest.mark.parametrize(
    ("change", "typical", "largest"),
    [
        ({"brightness": (0.6, 1.4)}, 0.7, 2),  # albumentations cuts off decimals
        ({"contrast": (0.5, 1.6)}, 0.7, 2),
        ({"brightness": (0.6, 1.4), "contrast": (0.5, 1.6)}, 1.4, 4),
        ({"colour_share": 1, "hue": (0, 0)}, 0.4, 2),
        ({"colour_share": 1, "saturation": (1, 1), "hue": (-0.2, 0.2)}, 1.5, 12),  # its hue has 180 steps
        ({"blur_share": 1, "blur": 3.0}, 0.3, 2),
    ],
)
def test_colours_and_blur_are_those_of_albumentations(change, typical, largest):
    fast, reference, _ = views_of(AugmentConfig(**STILL, **(PLAIN | change)), photo(96, 96))
    off = np.stack([np.abs(a.picture.astype(int) - b.picture) for a, b in zip(fast, reference, strict=True)])
    assert off.mean() < typical
    assert off.max() <= largest
    changed = [
        np.abs(view.picture[:, :: -1 if i % 2 else 1].astype(int) - photo(96, 96)).mean() for i, view in enumerate(fast)
    ]
    assert np.mean(changed) > 2 * off.mean()


def test_noise_has_the_distribution_of_albumentations():
    """Deviations by view, equal noise in the channels of half of the views, and the shape of a normal distribution."""
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    fast, reference, parameters = views_of(AugmentConfig(**STILL, **(PLAIN | {"noise_share": 1, "noise": 0.1})), grey)
    noise = [np.stack([view.picture.astype(float) - 128 for view in views]) for views in (fast, reference)]
    for values, slack in zip(noise, (0.4, 0.8), strict=True):  # albumentations cuts off decimals: less noise by 3 %
        np.testing.assert_allclose(values.std(axis=(1, 2, 3)), parameters.noise * 255, atol=slack)
        same = (values[..., 0] == values[..., 1]).mean(axis=(1, 2)) > 0.9
        assert (same[parameters.noise > 0.02] == ~parameters.noise_per_channel[parameters.noise > 0.02]).all()
    strong = parameters.noise > 0.05
    scaled = [(of[strong] / (255 * parameters.noise[strong])[:, None, None, None]).ravel() for of in noise]
    levels = [0.001, 0.02, 0.16, 0.5, 0.84, 0.98, 0.999]
    fast_levels, reference_levels = (
        np.quantile(of + np.random.default_rng(0).uniform(-0.03, 0.03, of.shape), levels) for of in scaled
    )
    np.testing.assert_allclose(fast_levels, reference_levels, atol=0.08)
    pixels = noise[0][np.argmax(parameters.noise * parameters.noise_per_channel), :, :, 0]
    assert abs(np.corrcoef(pixels[:, 1:].ravel(), pixels[:, :-1].ravel())[0, 1]) < 0.05
    between = np.corrcoef(noise[0][strong].reshape(strong.sum(), -1)) - np.eye(strong.sum())
    assert np.abs(between).max() < 0.1


def test_all_together_views_have_the_statistics_of_albumentations():
    fast, reference, _ = views_of(AugmentConfig(warp=0.06), photo(96, 96))
    pictures = [np.stack([view.picture.astype(float) for view in views]) for views in (fast, reference)]
    means, deviations = ([of.mean(axis=(1, 2)) for of in pictures], [of.std(axis=(1, 2)) for of in pictures])
    assert np.abs(means[0] - means[1]).max() < 4
    assert abs((means[0] - means[1]).mean()) < 1.5  # albumentations cuts off decimals twice
    assert np.abs(deviations[0] / deviations[1] - 1).mean() < 0.03


def test_pasted_objects_and_backgrounds_are_those_of_the_reference():
    boxed = Boxed(np.array([28.0, 24, 70, 66]), photo(96, 96, 5), np.array([20.0, 30, 60, 80]))
    fast, reference, parameters = views_of(AugmentConfig(**(PLAIN | {"paste": 1.0})), photo(96, 96), boxed=boxed)
    assert parameters.paste.all()
    xy = np.random.default_rng(0).uniform(30, 65, (20, 2))
    for a, b in zip(fast, reference, strict=True):
        np.testing.assert_allclose(places(a, xy), places(b, xy), atol=0.01)
        off = np.abs(a.picture.astype(int) - b.picture)
        assert off.mean() < 1.0
        assert np.quantile(off, 0.99) <= 8


def test_the_comparison_sees_a_map_that_is_half_a_pixel_off():
    """Or the tests above could not fail."""
    config = AugmentConfig(**PLAIN)
    parameters = draw_views(config, np.arange(VIEWS), np.zeros(VIEWS, bool))
    moved = replace(parameters, shift=parameters.shift + 0.5 / SIZE)
    augment = Augmenter(config, SIZE)
    a, b = (augment.views(p, [photo(96, 96)] * VIEWS).picture.astype(int) for p in (parameters, moved))
    assert np.abs(a - b)[:, 14:-14, 14:-14].mean() > 1.0
