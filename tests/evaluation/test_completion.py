"""Completion of landmarks that were not detected."""

import numpy as np
import pytest

from ray_kplm.evaluation.completion import complete_landmarks, observed_means, singular_value_threshold

RANK = 3


def low_rank(generator, images, columns):
    factors = generator.normal(size=(images, RANK)) @ generator.normal(size=(RANK, columns))
    return 10 * factors + generator.uniform(0, 128, size=columns)


@pytest.mark.parametrize("missing", [0.3, 0.4])
def test_a_low_rank_matrix_is_recovered(missing):
    generator = np.random.default_rng(5)
    matrix = low_rank(generator, 600, 40)
    gone = np.repeat(generator.random((600, 20)) < missing, 2, axis=1)

    completed = singular_value_threshold(np.where(gone, np.nan, matrix))

    deviation = matrix - matrix.mean(axis=0)
    error = np.linalg.norm((completed - matrix)[gone]) / np.linalg.norm(deviation[gone])
    assert error < 0.01  # the column means, as a stand-in, have error 1
    np.testing.assert_array_equal(completed[~gone], matrix[~gone])


def test_equal_columns_and_complete_matrices_pass_through():
    constant = np.tile([3.0, 70.0], (5, 1))
    holes = constant.copy()
    holes[1, 0] = np.nan
    np.testing.assert_array_equal(singular_value_threshold(holes), constant)
    complete = np.random.default_rng(0).normal(size=(6, 4))
    np.testing.assert_array_equal(singular_value_threshold(complete), complete)


def test_an_image_that_shows_nothing_becomes_the_mean():
    generator = np.random.default_rng(5)
    matrix = low_rank(generator, 100, 10)
    matrix[7] = np.nan
    np.testing.assert_allclose(singular_value_threshold(matrix)[7], np.nanmean(matrix, axis=0))


def test_a_column_without_entries_is_refused():
    with pytest.raises(ValueError, match="column 1: has no observed entry"):
        singular_value_threshold(np.array([[1.0, np.nan], [2.0, np.nan]]))


def test_training_rows_are_completed_by_low_rank_and_test_rows_by_the_training_mean():
    generator = np.random.default_rng(5)
    truth = low_rank(generator, 300, 20).reshape(300, 10, 2)
    train = np.where(generator.random((300, 10, 1)) < 0.3, np.nan, truth)
    test = truth[:2] + 500.0
    test[1, 4] = np.nan

    completed, filled, kept = complete_landmarks(train, test)

    gone = np.isnan(train)
    by_mean = np.broadcast_to(np.nanmean(train, axis=0), train.shape)
    assert np.abs(completed - truth)[gone].mean() < 0.02 * np.abs(by_mean - truth)[gone].mean()
    np.testing.assert_array_equal(completed[~gone], train[~gone])
    np.testing.assert_allclose(filled[1, 4], np.nanmean(train[:, 4], axis=0))
    np.testing.assert_array_equal(filled[0], test[0])
    assert kept.all()


def test_a_landmark_that_training_never_shows_is_dropped_and_named():
    train = np.random.default_rng(0).normal(size=(20, 3, 2))
    train[:, 1] = np.nan
    test = np.random.default_rng(1).normal(size=(4, 3, 2))
    completed, filled, kept = complete_landmarks(train, test)
    np.testing.assert_array_equal(kept, [True, False, True])
    np.testing.assert_array_equal(completed, train[:, [0, 2]])
    np.testing.assert_array_equal(filled, test[:, [0, 2]])


def test_no_landmark_at_all_leaves_none():
    completed, filled, kept = complete_landmarks(np.full((5, 2, 2), np.nan), np.zeros((3, 2, 2)))
    assert completed.shape == (5, 0, 2)
    assert filled.shape == (3, 0, 2)
    assert not kept.any()


def test_observed_means_ignore_missing_entries():
    values = np.array([[1.0, np.nan, 0.1], [np.nan, np.nan, 0.1], [4.0, np.nan, 0.1]])
    np.testing.assert_array_equal(observed_means(values), [2.5, np.nan, 0.1])
