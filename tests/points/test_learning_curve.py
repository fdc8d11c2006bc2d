"""Learning curves and their forecasts."""

import numpy as np
import pytest

from ray_kplm.points.learning_curve import LEAST_GROUPS, LearningCurve, learning_curve
from tests.points.test_fit import noisy


def curve_of(errors: np.ndarray, counts: np.ndarray) -> LearningCurve:
    draws = errors + np.random.default_rng(0).normal(size=(12, len(counts))) * 1e-4
    return LearningCurve(counts, draws.mean(0), draws.std(0), draws)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_a_power_law_is_continued(exponent):
    counts = np.array([3, 5, 7, 10, 14, 20])
    forecast = curve_of(0.03 + 0.1 / counts**exponent, counts).forecast(0.03 + 0.1 / 30**exponent, labels=30, more=10)
    assert forecast is not None
    assert forecast.then == pytest.approx(0.03 + 0.1 / 40**exponent, rel=0.02)
    assert forecast.low <= forecast.then <= forecast.high < forecast.now


def test_a_flat_curve_promises_nothing():
    counts = np.array([3, 5, 7, 10, 14, 20])
    forecast = curve_of(np.full(6, 0.05), counts).forecast(0.05, labels=30)
    assert forecast is not None
    assert forecast.then == pytest.approx(0.05, rel=0.01)


def test_errors_fall_with_labels_and_few_labels_tell_nothing():
    xy, y = noisy(40, 100, noise=0.02)
    curve = learning_curve(xy, y)
    assert curve is not None
    assert curve.counts.tolist() == [3, 5, 7, 10, 14, 20, 30]
    assert curve.errors[-1] < curve.errors[0]
    assert (curve.spreads > 0).all()
    assert learning_curve(xy[: LEAST_GROUPS - 1], y[: LEAST_GROUPS - 1]) is None
    few = learning_curve(xy[:LEAST_GROUPS], y[:LEAST_GROUPS])
    assert few is not None
    assert len(few.counts) >= 2


def test_points_with_few_labels_are_left_out_where_they_have_none():
    xy, y = noisy(20, 110)
    y[3:, 1] = np.nan
    curve = learning_curve(xy, y)
    assert curve is not None
    assert np.isfinite(curve.errors).all()
