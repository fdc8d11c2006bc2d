"""Fits of maps from landmarks to points: closed forms, frames, priors, wrong labels and local parts."""

import numpy as np
import pytest

from ray_kplm.evaluation.regression import FORWARD_RIDGE, fit_regressor
from ray_kplm.points.recipes import THESIS, Recipe, field_weights, fit_recipe, mean_shape

K, L = 6, 3
rng = np.random.default_rng(0)
SHAPE = rng.uniform(-0.2, 0.2, (K, 2))
WEIGHTS = rng.normal(size=(2 * K, 2 * L)) / 4


def posed(number: int, seed: int, spread: float = 0.02) -> np.ndarray:
    """Landmarks (N, K, 2) of a shape that is moved, turned and scaled, each landmark with some motion of its own."""
    draw = np.random.default_rng(seed)
    angle, scale = draw.uniform(-0.6, 0.6, number), draw.uniform(0.6, 1.4, number)
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    own = SHAPE + draw.normal(size=(number, K, 2)) * spread
    return scale[:, None, None] * own @ turn + draw.uniform(0.4, 0.6, (number, 1, 2))


def affine(xy: np.ndarray) -> np.ndarray:
    return 0.3 + (xy.reshape(len(xy), -1) @ WEIGHTS).reshape(-1, L, 2)


def error(regressor, xy, truth) -> float:
    return float(np.linalg.norm(regressor.predict(xy) - truth, axis=-1).mean())


def test_the_thesis_ridge_is_the_regressor_of_the_evaluation():
    xy, more = posed(30, 1), posed(10, 2)
    y = affine(xy)
    y[3, 1] = np.nan
    expected = fit_regressor(xy.reshape(30, -1), y.reshape(30, -1), FORWARD_RIDGE).predict(more.reshape(10, -1))
    np.testing.assert_allclose(fit_recipe(xy, y, THESIS).predict(more), expected.reshape(10, L, 2), atol=1e-9)


@pytest.mark.parametrize("recipe", [Recipe("image", 1e-9), Recipe("image", 1e-9, field=True)])
def test_an_affine_truth_is_recovered(recipe):
    xy, more = posed(60, 3, spread=0.05), posed(20, 4, spread=0.05)
    y = affine(xy)
    y[rng.random((60, L)) < 0.2] = np.nan  # each point is fitted on the images that have it
    np.testing.assert_allclose(fit_recipe(xy, y, recipe).predict(more), affine(more), atol=1e-5)


@pytest.mark.parametrize("field", [False, True])
def test_two_images_are_enough_in_the_frame_of_a_rigid_object(field):
    xy, more = posed(2, 5, spread=0), posed(20, 6, spread=0)
    fitted = fit_recipe(xy, xy[:, :L], Recipe("similarity", 1.0, field))
    np.testing.assert_allclose(fitted.predict(more), more[:, :L], atol=1e-6)


def test_a_smooth_deformation_needs_only_the_means():
    def deformed(number, seed):
        """A grid of 9 landmarks with 2 points inside, moved by a random quadratic field."""
        grid = np.stack(np.meshgrid([-1.0, 0, 1], [-1.0, 0, 1]), -1).reshape(-1, 2)
        both = np.concatenate([grid, [[0.5, 0.5], [-0.5, 0.3]]])
        x, y = both.T
        terms = np.stack([np.ones(11), x, y, x * y, x * x, y * y], -1)
        coefficients = np.random.default_rng(seed).normal(size=(number, 2, 6)) * 0.1
        moved = both + np.einsum("ncf,pf->npc", coefficients, terms)
        moved = 0.5 + 0.2 * moved
        return moved[:, :9], moved[:, 9:]

    (xy, y), (more, truth) = deformed(4, 7), deformed(50, 8)
    field, ridge = (error(fit_recipe(xy, y, recipe), more, truth) for recipe in (Recipe("image", None, True), THESIS))
    assert field < 0.3 * ridge


def test_a_field_gives_a_point_on_a_landmark_the_motion_of_that_landmark_mostly():
    places = np.stack(np.meshgrid([0.0, 1, 2], [0.0, 1, 2]), -1).reshape(-1, 2)
    weights = field_weights(places, places[[4]])[:, 0]
    assert weights.argmax() == 4
    assert weights.sum() == pytest.approx(1, abs=0.05)  # a common shift moves it as far


def test_a_wrong_label_counts_less():
    xy, more = posed(40, 9), posed(30, 10)
    y = xy[:, :L].copy()
    y[5, 0] += 0.5
    plain, robust = (
        error(fit_recipe(xy, y, Recipe("similarity", 0.1, True, robust)), more, more[:, :L]) for robust in (False, True)
    )
    assert robust < 0.5 * plain


def bent(number: int, seed: int, bend: float = 0.2):
    """Two landmarks, and a point whose height is a wave of where the second is."""
    draw = np.random.default_rng(seed)
    xy = np.stack([np.full((number, 2), 0.5), draw.uniform(0.2, 0.8, (number, 2))], 1)
    return xy, np.stack([xy[:, 1, 0], 0.5 + bend * np.sin(15 * xy[:, 1, 0])], -1)[:, None]


def test_a_local_part_follows_what_no_affine_map_can():
    (xy, y), (more, truth) = bent(200, 11), bent(50, 12)
    y[::7] = np.nan
    local, linear = (fit_recipe(xy, y, Recipe("image", 1e-3, reach=reach)) for reach in (0.3, None))
    assert error(local, more, truth) < 0.3 * error(linear, more, truth)
    assert len(local.support) == 200
    assert len(linear.support) == 0


def test_the_mean_shape_has_no_pose():
    reference = mean_shape(posed(100, 13, spread=0))
    unit = reference / np.linalg.norm(reference)
    shape = SHAPE - SHAPE.mean(0)
    angle = np.arctan2(*(np.cross(shape, unit).sum(), (shape * unit).sum()))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(shape @ turn / np.linalg.norm(shape), unit, atol=1e-6)
