"""Thin-plate splines through points that are known."""

import numpy as np
import pytest

from ray_kplm.imaging.thin_plate import fit_thin_plate, sample_at

SOURCE = np.array([[0.2, 0.2], [0.8, 0.25], [0.7, 0.8], [0.25, 0.7], [0.5, 0.45]])
PLACES = np.random.default_rng(0).uniform(0, 1, (30, 2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_affine_motion_is_reproduced_everywhere(smoothing):
    linear, shift = np.array([[40.0, 10.0], [-5.0, 60.0]]), np.array([3.0, 7.0])
    mapped = fit_thin_plate(SOURCE, SOURCE @ linear.T + shift, PLACES, smoothing)
    np.testing.assert_allclose(mapped, PLACES @ linear.T + shift, atol=1e-6)


def test_without_smoothing_the_points_are_met_and_with_it_approached():
    target = SOURCE + np.array([[0, 0], [0, 0], [0, 0], [0, 0], [0.1, 0.05]])
    np.testing.assert_allclose(fit_thin_plate(SOURCE, target, SOURCE, 0), target, atol=1e-9)
    bent = fit_thin_plate(SOURCE, target, SOURCE, 0.1)[4] - target[4]
    straight = fit_thin_plate(SOURCE, target, SOURCE, 1e6)[4] - target[4]
    assert 0.001 < np.linalg.norm(bent) < np.linalg.norm(straight)


def test_points_on_a_line_have_a_finite_map():
    line = np.array([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]])
    assert np.isfinite(fit_thin_plate(line, line, PLACES)).all()


def test_a_picture_is_sampled_at_the_places():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    places = np.array([[x, y] for y in range(2) for x in range(3)], float)
    np.testing.assert_array_equal(sample_at(picture, places, (2, 3)), picture[:2, :3])
    np.testing.assert_array_equal(sample_at(picture, places - 9, (2, 3))[0, 0], picture[0, 0])
