"""Since when a series is different."""

import numpy as np
import pytest

from ray_kplm.screening.change_point import LEAST, change_point


@pytest.mark.parametrize(("count", "at"), [(60, 24), (200, 150), (1000, 80)])
def test_a_change_is_located(count, at):
    series = np.random.default_rng(0).normal(size=count) + 2 * (np.arange(count) >= at)
    change = change_point(series)
    assert abs(change.at - at) <= 3
    assert change.p <= 0.05
    assert change.after - change.before == pytest.approx(2, abs=0.6)


def test_a_series_without_a_change_has_none():
    series = [np.random.default_rng(seed).normal(size=60) for seed in range(20)]
    assert sum(change_point(one).p <= 0.05 for one in series) <= 4


def test_slow_variation_is_no_change():
    """As the frames of a video vary: neighbours are alike."""
    found = 0
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=400)
        found += change_point(np.convolve(noise, np.ones(5) / 5, "valid")).p <= 0.05
    assert found <= 4


def test_a_short_or_constant_series_has_none():
    assert change_point(np.arange(LEAST - 1.0)) is None
    assert change_point(np.ones(20)).p == 1
