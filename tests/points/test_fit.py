"""Choice of a map by cross-validation."""

import numpy as np
import pytest

from ray_kplm.errors import DataError
from ray_kplm.points.fit import cross_validated, fit_points, make_folds, object_sizes
from ray_kplm.points.recipes import THESIS
from tests.points.test_recipes import L, affine, bent, posed


def noisy(number: int, seed: int, noise: float = 0.004):
    """Landmarks with noise, and points that are those of the object without it."""
    xy = posed(number, seed)
    return xy + np.random.default_rng(seed + 1).normal(size=xy.shape) * noise, xy[:, :L]


def test_few_labels_are_fitted_better_than_by_the_thesis_ridge():
    (xy, y), (more, truth) = noisy(8, 20), noisy(200, 30)
    fit = fit_points(xy, y)
    assert fit.recipe != THESIS
    assert fit.gain > 0
    error = np.linalg.norm(fit.regressor.predict(more) - truth, axis=-1).mean(0) / object_sizes(more).mean()
    np.testing.assert_allclose(fit.error, error.mean(), rtol=0.5)  # what is promised is what comes
    thesis = fit_points(xy, y, recipes=[THESIS])
    assert thesis.recipe == THESIS
    assert np.linalg.norm(thesis.regressor.predict(more) - truth, axis=-1).mean() > 1.5 * (
        np.linalg.norm(fit.regressor.predict(more) - truth, axis=-1).mean()
    )


def test_the_thesis_ridge_stays_where_nothing_is_clearly_better():
    xy = posed(60, 40, spread=0.1)
    y = affine(xy) + np.random.default_rng(0).normal(size=(60, L, 2)) * 0.2  # noise alone decides
    fit = fit_points(xy, y)
    best = fit.trials[0]
    if fit.recipe == THESIS:
        difference = fit.thesis.group_errors - best.group_errors
        assert difference.mean() <= difference.std(ddof=1) / np.sqrt(60)
    exact = fit_points(xy, affine(xy))
    assert exact.recipe.frame == "image"
    assert exact.error < 0.05


def test_a_local_part_is_taken_only_where_it_helps():
    straight, waved = (fit_points(*bent(60, 50, bend)) for bend in (0.0, 0.2))
    assert straight.recipe.reach is None
    assert waved.recipe.reach is not None


def test_groups_are_never_split():
    group = np.random.default_rng(0).integers(0, 30, 200)
    folds = make_folds(np.unique(group, return_inverse=True)[1], seed=1)
    assert np.sum(folds, axis=0).tolist() == [1] * 200
    for held_out in folds:
        assert not set(group[held_out]) & set(group[~held_out])
    assert max(map(np.sum, folds)) < 200 / 4


def test_copies_of_an_image_do_not_judge_each_other():
    xy, y = noisy(6, 60, noise=0.02)
    xy, y = np.tile(xy, (5, 1, 1)), np.tile(y, (5, 1, 1))
    leaking, honest = fit_points(xy, y), fit_points(xy, y, groups=np.tile(np.arange(6), 5).tolist())
    assert leaking.error < 0.5 * honest.error


def test_missing_labels_are_no_labels():
    xy, y = noisy(20, 70)
    y[::2, 1] = np.nan
    fit = fit_points(xy, y)
    assert np.isnan(fit.errors[::2, 1]).all()
    assert np.isfinite(fit.errors[1::2]).all()
    assert np.isfinite(fit.predicted).all()
    alone = fit_points(xy[1::2], y[1::2, [1]], recipes=[THESIS])
    np.testing.assert_allclose(
        cross_validated(xy[1::2], y[1::2, [1]], make_folds(np.arange(10), 0), THESIS), alone.predicted
    )


def test_a_point_of_two_images_is_refused():
    xy, y = noisy(5, 80)
    y[2:, 1] = np.nan
    with pytest.raises(DataError, match="point 1 is labelled in 2 images: 3 images of different groups are needed"):
        fit_points(xy, y)
    with pytest.raises(DataError, match="3 images of different groups"):
        fit_points(xy, y[:, :1], groups=[0, 0, 0, 1, 1])


def test_the_same_labels_give_the_same_map():
    xy, y = noisy(25, 90)
    a, b = fit_points(xy, y, seed=3), fit_points(xy, y, seed=3)
    np.testing.assert_array_equal(a.regressor.weights, b.regressor.weights)
    np.testing.assert_array_equal(a.predicted, b.predicted)


def test_sizes_are_those_of_the_box_and_never_nothing():
    box = np.array([[[0, 0], [0.4, 0.1]], [[0, 0], [0.4, 0.4]], [[0, 0], [0.4, 0.0]]])
    np.testing.assert_allclose(object_sizes(box), [0.2, 0.4, 0.2])
    assert object_sizes(np.zeros((3, 1, 2))).tolist() == [1, 1, 1]
