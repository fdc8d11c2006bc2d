"""Values as quantiles of a reference."""

import numpy as np
import pytest

from ray_kplm.screening.normal_scores import NormalScores


def test_a_reference_of_any_distribution_becomes_normal():
    values = np.exp(np.random.default_rng(0).normal(size=999))
    scores = NormalScores.of(values).of_reference(values)
    assert (scores.mean(), scores.std()) == pytest.approx((0, 1), abs=0.02)
    assert (np.argsort(scores) == np.argsort(values)).all()


def test_values_beyond_the_reference_go_on_slowly():
    scores = NormalScores.of(np.linspace(-1, 1, 201))
    beyond = scores(np.array([1.0, 1.5, 3.0, 1e9]))
    assert (np.diff(beyond) > 0).all()
    assert beyond[-1] < 6
    assert scores(-np.array([1.5])) == pytest.approx(-scores(np.array([1.5])))


def test_equal_values_are_in_the_middle_and_rounding_is_no_difference():
    scores = NormalScores.of(np.full(50, 0.25))
    assert scores(np.array([0.25, 0.25 + 1e-12, np.nan]))[:2] == pytest.approx([0, 0])
    assert np.isnan(scores(np.array([np.nan]))[0])
    assert scores(np.array([0.5]))[0] > 2


def test_new_values_have_the_mean_and_spread_of_the_reference():
    """Over many references and new values of one distribution."""
    rng = np.random.default_rng(0)
    spread = []
    for _ in range(300):
        values = rng.normal(size=40)
        scores = NormalScores.of(values)
        own, new = scores.of_reference(values), scores(rng.normal(size=40))
        spread.append(np.abs(np.clip(new, -2, 2)).mean() - np.abs(np.clip(own, -2, 2)).mean())
    assert np.mean(spread) == pytest.approx(0, abs=3 * np.std(spread) / np.sqrt(300))
