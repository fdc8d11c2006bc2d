"""Random numbers of views: a function of the seed alone, independent between transforms, in their ranges."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.view_parameters import ViewParameters, draw_views

SEEDS = np.random.default_rng(0).integers(0, 2**31, 20_000)
NO_FLIP = np.zeros(len(SEEDS), bool)
ZOOM = [0.8554837641, 1.0774048556, 1.0087565656]
LAST_NODE = [-0.0412596334, 0.0048728449, 0.0359415202]
NOISE_SEED = [6947885922126837131, 16173281789144482580, 9820523787493322369]


def test_a_view_does_not_depend_on_the_batch_that_it_is_drawn_in():
    config = AugmentConfig(warp=0.06)
    whole = draw_views(config, SEEDS[:50], NO_FLIP[:50])
    for rows in (slice(7, 8), slice(20, 45)):
        part = draw_views(config, SEEDS[rows], NO_FLIP[rows])
        for field in fields(ViewParameters):
            np.testing.assert_array_equal(getattr(part, field.name), getattr(whole.rows(rows), field.name))


def test_the_first_numbers_are_those_that_stored_runs_were_trained_with():
    drawn = draw_views(AugmentConfig(warp=0.06), np.array([0, 1, 2**31 - 1]), np.array([False, True, False]))
    np.testing.assert_allclose(drawn.zoom, ZOOM, atol=1e-9)
    np.testing.assert_allclose(drawn.warp[:, 3, 3, 1], LAST_NODE, atol=1e-9)
    assert drawn.noise_seed.tolist() == NOISE_SEED


def test_values_fill_their_ranges_evenly():
    config = AugmentConfig(warp=0.06, blur=0.8)
    drawn = draw_views(config, SEEDS, NO_FLIP)
    for values, (low, high) in (
        (drawn.zoom, config.scale),
        (drawn.rotation, (-config.rotate, config.rotate)),
        (drawn.shift, (-config.translate, config.translate)),
        (drawn.brightness, config.brightness),
        (drawn.contrast, config.contrast),
        (drawn.saturation[drawn.saturation != 1], config.saturation),
        (drawn.hue[drawn.hue != 0], config.hue),
        (drawn.blur[drawn.blur != 0], (0, config.blur)),
        (drawn.noise[drawn.noise != 0], (0, config.noise)),
        (drawn.warp, (-config.warp, config.warp)),
        (drawn.paste_shift, (-config.paste_shift, config.paste_shift)),
    ):
        counts, _ = np.histogram(values, bins=10, range=(low, high))
        assert counts.sum() == values.size
        assert np.abs(counts / (values.size / 10) - 1).max() < 0.12


@pytest.mark.parametrize(
    ("name", "share"), [("saturation", 0.3), ("blur", 0.3), ("noise", 0.5), ("paste", 0.5), ("noise_per_channel", 0.5)]
)
def test_as_many_views_are_changed_as_configured(name, share):
    neutral = {"saturation": 1.0, "blur": 0.0, "noise": 0.0, "paste": False, "noise_per_channel": False}[name]
    assert (getattr(draw_views(AugmentConfig(), SEEDS, NO_FLIP), name) != neutral).mean() == pytest.approx(
        share, abs=0.015
    )


def test_transforms_draw_from_independent_streams():
    drawn = draw_views(AugmentConfig(warp=0.06, colour_share=1, blur_share=1, noise_share=1), SEEDS, NO_FLIP)
    names = ("zoom", "rotation", "brightness", "contrast", "saturation", "hue", "blur", "noise")
    columns = [getattr(drawn, name) for name in names]
    columns += [
        *drawn.shift.T,
        *drawn.paste_shift.T,
        *drawn.warp.reshape(len(SEEDS), -1).T,
        drawn.noise_seed.astype(float),
    ]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / len(SEEDS) ** 0.5


def test_what_one_transform_draws_does_not_change_another_one():
    plain, changed = (
        draw_views(AugmentConfig(**c), SEEDS[:20], NO_FLIP[:20]) for c in ({}, {"warp": 0.06, "paste": 0.1})
    )
    for name in ("zoom", "rotation", "shift", "brightness", "saturation", "blur", "noise", "noise_seed"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(changed, name))


def test_without_a_range_a_view_is_the_input():
    still = AugmentConfig(scale=(1, 1), translate=0, rotate=0, brightness=(1, 1), contrast=(1, 1), colour_share=0, blur_share=0,
                          noise_share=0, paste=0)  # fmt: skip
    drawn = draw_views(still, SEEDS[:5], NO_FLIP[:5])
    np.testing.assert_array_equal(drawn.input_to_view(64), np.tile(np.eye(3)[:2], (5, 1, 1)))
    assert not drawn.warp.any()
    assert not drawn.paste.any()
    assert not drawn.noise.any()


def test_the_map_turns_about_the_centre_and_mirrors_first():
    config = AugmentConfig(scale=(2, 2), translate=0, rotate=0)
    turned = replace(draw_views(config, SEEDS[:1], np.array([True])), rotation=np.array([90.0]))
    affine = turned.input_to_view(65)[0]
    np.testing.assert_allclose(coordinates.apply(affine, np.array([32.0, 32.0])), [32, 32], atol=1e-9)
    # right of the centre, mirrored to its left, turned from x to y: above the centre
    np.testing.assert_allclose(coordinates.apply(affine, np.array([42.0, 32.0])), [32, 12], atol=1e-9)
