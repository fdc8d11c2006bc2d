"""Regressors and errors: closed forms, scikit-learn as a second opinion, one missing point, one outlier."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.regression import (
    backward_nme,
    cumulative_curve,
    fit_regressor,
    forward_nme,
    mean_shape_nme,
)

TRAIN, TEST = 60, 25


@pytest.fixture
def generator():
    return np.random.default_rng(3)


def shapes(generator, images, landmarks):
    return 128.0 * generator.random((images, landmarks, 2))


def linear_parts(generator, discovered=4, annotated=6):
    """Both parts with truth an exact affine function of the discovered landmarks."""
    weights = generator.normal(size=(2 * discovered, 2 * annotated))
    bias = generator.normal(size=2 * annotated) * 50
    parts = []
    for images in (TRAIN, TEST):
        xy = shapes(generator, images, discovered)
        truth = (xy.reshape(images, -1) @ weights + bias).reshape(images, annotated, 2)
        parts += [xy, truth]
    return parts


@pytest.mark.parametrize("share", [0.001, 0.1])
def test_weights_equal_scikit_learn_ridge_on_centred_sides(generator, share):
    x = generator.normal(size=(50, 8)) * 30 + 64
    y = generator.normal(size=(50, 6)) * 30 + 64
    x_centred, y_centred = x - x.mean(axis=0), y - y.mean(axis=0)
    alpha = share * (x_centred.T @ x_centred).max()
    reference = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(x_centred, y_centred)

    regressor = fit_regressor(x, y, share)

    np.testing.assert_allclose(regressor.weights, reference.coef_.T, rtol=0, atol=1e-6)
    np.testing.assert_allclose(regressor.predict(x), reference.predict(x_centred) + y.mean(axis=0), atol=1e-6)


def ridge_nme(train_x, train_y, test_x, test_y, lengths, share):
    """NME per target point by scikit-learn and the formula of docs/method.md 9, written once more: each point on the rows that
    have it, both sides centred, alpha = share * max(X'X). Inputs complete, targets with NaN."""
    errors = np.full(test_y.shape[:2], np.nan)
    for point in range(train_y.shape[1]):
        rows = np.isfinite(train_y[:, point]).all(axis=-1)
        x, y = train_x[rows].reshape(rows.sum(), -1), train_y[rows, point]
        centred = x - x.mean(axis=0)
        alpha = share * np.max(centred.T @ centred)
        model = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(centred, y - y.mean(axis=0))
        predicted = model.predict(test_x.reshape(len(test_x), -1) - x.mean(axis=0)) + y.mean(axis=0)
        errors[:, point] = 100 * np.linalg.norm(predicted - test_y[:, point], axis=-1) / lengths
    return errors


def scattered(generator, xy, share):
    return np.where(generator.random((*xy.shape[:2], 1)) < share, np.nan, xy)


@pytest.mark.parametrize("train_images", [None, 30])
def test_forward_and_backward_equal_an_independent_implementation(generator, train_images):
    train_xy, train_truth, test_xy, test_truth = linear_parts(generator)
    train_xy, test_xy = (xy + generator.normal(scale=4.0, size=xy.shape) for xy in (train_xy, test_xy))
    train_truth, test_truth = scattered(generator, train_truth, 0.1), scattered(generator, test_truth, 0.1)
    lengths = generator.uniform(20, 40, size=TEST)
    options = {"train_images": train_images, "draws": 3, "seed": 5}

    def draws(eligible):
        """The rows of each draw, as documented: from one generator, without replacement."""
        rows = np.random.default_rng(5)
        count = len(eligible) if train_images is None else train_images
        return [rows.choice(eligible, count, replace=False) for _ in range(1 if train_images is None else 3)]

    forward = forward_nme(train_xy, train_truth, test_xy, test_truth, lengths, **options)
    errors = [
        ridge_nme(train_xy[rows], train_truth[rows], test_xy, test_truth, lengths, 0.001)
        for rows in draws(np.arange(TRAIN))
    ]
    expected = np.nanmean(np.mean(errors, axis=0), axis=0)
    np.testing.assert_allclose(forward.per_landmark, expected, rtol=0, atol=1e-6)
    assert forward.mean == pytest.approx(expected.mean(), abs=1e-6)
    np.testing.assert_allclose(forward.errors, np.mean(errors, axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(forward.per_image, np.nanmean(np.mean(errors, axis=0), axis=1), rtol=0, atol=1e-6)

    train_found, test_found = scattered(generator, train_xy, 0.2), scattered(generator, test_xy, 0.2)
    means = np.nanmean(train_truth, axis=0)
    train_full = np.where(np.isnan(train_truth), means, train_truth)
    test_full = np.where(np.isnan(test_truth), means, test_truth)
    backward = backward_nme(train_found, train_truth, test_found, test_truth, lengths, **options)
    eligible = np.flatnonzero(np.isfinite(train_found).all(axis=-1).any(axis=-1))
    errors = [
        ridge_nme(train_full[rows], train_found[rows], test_full, test_found, lengths, 0.1) for rows in draws(eligible)
    ]
    expected = np.nanmean(np.mean(errors, axis=0), axis=0)
    np.testing.assert_allclose(backward.per_landmark, expected, rtol=0, atol=1e-6)
    assert backward.mean == pytest.approx(expected.mean(), abs=1e-6)


def test_a_target_missing_in_some_rows_is_fitted_on_the_others(generator):
    x = generator.normal(size=(40, 4)) + 5
    y = generator.normal(size=(40, 3)) - 7
    y[:15, 1] = np.nan
    regressor = fit_regressor(x, y, 0.01)
    alone = fit_regressor(x[15:], y[15:, 1:2], 0.01)
    complete = fit_regressor(x, y[:, [0, 2]], 0.01)
    np.testing.assert_allclose(regressor.predict(x)[:, 1:2], alone.predict(x), atol=1e-9)
    np.testing.assert_allclose(regressor.predict(x)[:, [0, 2]], complete.predict(x), atol=1e-9)


def test_a_target_without_rows_is_not_predicted(generator):
    y = np.column_stack([np.full(10, np.nan), np.arange(10.0)])
    predicted = fit_regressor(generator.normal(size=(10, 2)), y, 0.01).predict(np.zeros((1, 2)))
    np.testing.assert_array_equal(np.isnan(predicted), [[True, False]])


def test_missing_inputs_are_refused(generator):
    x = generator.normal(size=(10, 4))
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 input coordinates are not finite.*complete_landmarks"):
        fit_regressor(x, x, 0.1)


def test_an_exact_linear_relation_has_no_error_without_ridge(generator):
    train_xy, train_truth, test_xy, test_truth = linear_parts(generator)
    result = forward_nme(train_xy, train_truth, test_xy, test_truth, np.full(TEST, 30.0), ridge=0.0)
    assert result.mean < 1e-6
    with_ridge = forward_nme(train_xy, train_truth, test_xy, test_truth, np.full(TEST, 30.0), ridge=0.1)
    assert with_ridge.mean > 1.0


def test_the_error_does_not_depend_on_the_unit(generator):
    parts = [shapes(generator, n, k) for n, k in ((TRAIN, 3), (TRAIN, 5), (TEST, 3), (TEST, 5))]
    lengths = np.full(TEST, 30.0)
    in_pixels = forward_nme(*parts, lengths)
    in_sides = forward_nme(*(part / 128 - 0.5 for part in parts), lengths / 128)
    np.testing.assert_allclose(in_pixels.per_landmark, in_sides.per_landmark, rtol=1e-9)


def test_one_outlier_costs_its_own_landmark_and_no_other(generator):
    train_xy, train_truth, test_xy, test_truth = linear_parts(generator)
    test_truth[4, 2] += (30.0, 40.0)
    lengths = np.full(TEST, 20.0)
    lengths[4] = 25.0
    result = forward_nme(train_xy, train_truth, test_xy, test_truth, lengths, ridge=0.0)
    expected = np.zeros(6)
    expected[2] = 100 * (50 / 25) / TEST
    np.testing.assert_allclose(result.per_landmark, expected, atol=1e-6)
    assert result.mean == pytest.approx(expected.mean(), abs=1e-6)


def test_one_missing_point_is_left_out_and_counted(generator):
    train_xy, train_truth, test_xy, test_truth = linear_parts(generator)
    test_truth[4, 2] += 100.0
    lengths = np.full(TEST, 20.0)
    test_truth[4, 2] = np.nan
    train_truth[7, 2] = np.nan
    result = forward_nme(train_xy, train_truth, test_xy, test_truth, lengths, ridge=0.0)
    assert result.mean < 1e-6
    assert (result.left_out, result.test_images, result.train_images) == (1, TEST, TRAIN)


def test_an_image_without_normaliser_is_left_out(generator):
    parts = linear_parts(generator)
    lengths = np.full(TEST, 20.0)
    lengths[0] = np.nan
    result = forward_nme(*parts, lengths)
    assert (result.left_out, result.test_images) == (6, TEST - 1)
    assert np.isfinite(result.mean)


def test_only_annotated_training_images_are_drawn(generator):
    train_xy, train_truth, test_xy, test_truth = linear_parts(generator)
    train_truth[5:] = np.nan
    result = forward_nme(train_xy, train_truth, test_xy, test_truth, np.full(TEST, 20.0), train_images=30)
    assert result.train_images == 5
    assert result.sd == 0


def test_draws_are_seeded_and_differ(generator):
    parts = [shapes(generator, n, k) for n, k in ((TRAIN, 3), (TRAIN, 5), (TEST, 3), (TEST, 5))]
    lengths = np.full(TEST, 30.0)
    first = forward_nme(*parts, lengths, train_images=20, seed=1)
    again = forward_nme(*parts, lengths, train_images=20, seed=1)
    other = forward_nme(*parts, lengths, train_images=20, seed=2)
    assert first.mean == again.mean != other.mean
    assert first.sd > 0
    assert first.train_images == 20


def test_a_draw_takes_no_image_twice(generator):
    train_xy, train_truth, test_xy, test_truth = linear_parts(generator, discovered=4)
    # 8 inputs and the means are fixed by 9 different images, and by no fewer.
    result = forward_nme(
        train_xy[:10], train_truth[:10], test_xy, test_truth, np.full(TEST, 30.0), train_images=9, ridge=0.0
    )
    assert result.mean < 1e-3


def test_mean_and_deviation_are_over_draws(generator):
    parts = [shapes(generator, n, k) for n, k in ((TRAIN, 3), (TRAIN, 5), (TEST, 3), (TEST, 5))]
    lengths = np.full(TEST, 30.0)
    first = forward_nme(*parts, lengths, train_images=20, draws=1)
    both = forward_nme(*parts, lengths, train_images=20, draws=2)
    assert first.sd == 0
    assert both.sd == pytest.approx(abs(both.mean - first.mean))  # half the distance of the two, both ways
    assert both.sd > 0


def test_all_images_need_one_draw(generator):
    parts = [shapes(generator, n, k) for n, k in ((TRAIN, 3), (TRAIN, 5), (TEST, 3), (TEST, 5))]
    lengths = np.full(TEST, 30.0)
    everything = forward_nme(*parts, lengths)
    assert everything.sd == 0
    assert forward_nme(*parts, lengths, train_images=TRAIN + 1).mean == everything.mean
    assert forward_nme(*parts, lengths, train_images=TRAIN - 1).sd > 0


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"train_images": 0}])
def test_nothing_to_draw_is_refused(generator, wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        forward_nme(*linear_parts(generator), np.ones(TEST), **wrong)


def test_a_static_landmark_has_the_mean_shapes_forward_error_and_no_backward_error(generator):
    train_truth, test_truth = shapes(generator, TRAIN, 5), shapes(generator, TEST, 5)
    train_xy, test_xy = np.full((TRAIN, 1, 2), 63.7), np.full((TEST, 1, 2), 63.7)
    lengths = np.full(TEST, 30.0)
    forward = forward_nme(train_xy, train_truth, test_xy, test_truth, lengths)
    baseline = mean_shape_nme(train_truth, test_truth, lengths)
    np.testing.assert_allclose(forward.per_landmark, baseline.per_landmark, rtol=1e-9)
    assert baseline.mean > 50
    assert backward_nme(train_xy, train_truth, test_xy, test_truth, lengths).mean < 1e-6


def test_an_unstable_landmark_has_a_large_backward_error(generator):
    train_xy, train_truth, test_xy, test_truth = linear_parts(generator, discovered=3)
    train_xy[:, 1], test_xy[:, 1] = shapes(generator, TRAIN, 1)[:, 0], shapes(generator, TEST, 1)[:, 0]
    result = backward_nme(train_xy, train_truth, test_xy, test_truth, np.full(TEST, 30.0), ridge=1e-9)
    assert result.per_landmark[1] > 50
    assert result.per_landmark[[0, 2]].max() < 0.1


def test_backward_uses_only_images_that_show_the_landmark(generator):
    train_truth, test_truth = shapes(generator, TRAIN, 3), shapes(generator, TEST, 3)
    train_xy, test_xy = train_truth.copy(), test_truth.copy()
    train_xy[:20, 0], test_xy[:5, 0] = np.nan, np.nan
    lengths = np.full(TEST, 30.0)
    result = backward_nme(train_xy, train_truth, test_xy, test_truth, lengths)
    shown = backward_nme(train_xy[20:], train_truth[20:], test_xy[5:], test_truth[5:], lengths[5:])
    assert result.per_landmark[0] == pytest.approx(shown.per_landmark[0], rel=1e-9)
    assert (result.left_out, result.test_images) == (5, TEST)


def test_backward_completes_a_missing_annotation_by_its_training_mean(generator):
    train_truth, test_truth = shapes(generator, TRAIN, 3), shapes(generator, TEST, 3)
    train_xy, test_xy = train_truth[:, :2] + 1, test_truth[:, :2] + 1
    lengths = np.full(TEST, 30.0)
    filled = test_truth.copy()
    filled[6, 1] = train_truth[:, 1].mean(axis=0)
    missing = test_truth.copy()
    missing[6, 1] = np.nan
    expected = backward_nme(train_xy, train_truth, test_xy, filled, lengths)
    result = backward_nme(train_xy, train_truth, test_xy, missing, lengths)
    np.testing.assert_allclose(result.per_landmark, expected.per_landmark, rtol=1e-9)
    assert result.left_out == 0


def test_backward_leaves_out_images_without_any_annotation(generator):
    train_truth, test_truth = shapes(generator, TRAIN, 3), shapes(generator, TEST, 3)
    train_xy, test_xy = train_truth[:, :2].copy(), test_truth[:, :2].copy()
    test_truth[0], train_truth[0] = np.nan, np.nan
    test_xy[0] += 1000
    result = backward_nme(train_xy, train_truth, test_xy, test_truth, np.full(TEST, 30.0), ridge=0.0)
    assert result.mean < 1e-6
    assert (result.left_out, result.test_images, result.train_images) == (2, TEST - 1, TRAIN - 1)


def test_the_mean_shape_error_equals_a_hand_computed_one():
    train = np.array([[[0.0, 0.0], [10.0, 10.0]], [[2.0, 4.0], [np.nan, np.nan]]])  # means (1, 2) and (10, 10)
    test = np.array([[[4.0, 6.0], [10.0, 10.0]], [[1.0, 2.0], [10.0, 30.0]]])  # 5 and 0 away, 0 and 20 away
    result = mean_shape_nme(train, test, np.array([10.0, 40.0]))
    np.testing.assert_allclose(result.per_landmark, [100 * (5 / 10) / 2, 100 * (20 / 40) / 2])
    assert result.mean == pytest.approx(25.0)
    assert result.sd == 0


def test_mean_shape_of_equal_shapes_has_no_error(generator):
    shape = shapes(generator, 1, 7)
    result = mean_shape_nme(shape.repeat(9, axis=0), shape.repeat(4, axis=0), np.ones(4))
    np.testing.assert_array_equal(result.per_landmark, np.zeros(7))


def test_cumulative_curve_is_the_running_mean_from_the_best():
    np.testing.assert_allclose(cumulative_curve([9.0, 3.0, np.nan, 6.0]), [3.0, 4.5, 6.0])


def test_the_mean_is_the_end_of_the_cumulative_curve(generator):
    parts = [shapes(generator, n, k) for n, k in ((TRAIN, 3), (TRAIN, 5), (TEST, 3), (TEST, 5))]
    parts[3][3:, 0] = np.nan
    result = forward_nme(*parts, np.full(TEST, 30.0), train_images=20)
    assert cumulative_curve(result.per_landmark)[-1] == pytest.approx(result.mean)
