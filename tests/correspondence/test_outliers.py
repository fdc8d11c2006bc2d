"""Outlier scores of keypoints."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.correspondence import outliers
from ray_kplm.correspondence.outliers import KNNOutlierScore


def unit(points: np.ndarray) -> np.ndarray:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def crowd(count: int, seed: int = 0) -> np.ndarray:
    """Points about eight directions of 16 dimensions."""
    rng = np.random.default_rng(seed)
    return unit(np.eye(16)[rng.integers(0, 8, count)] + 0.05 * rng.normal(size=(count, 16)))


def lonely(count: int) -> np.ndarray:
    return unit(np.eye(16)[8:][np.arange(count) % 8] + 0.5 * np.random.default_rng(1).normal(size=(count, 16)))


def test_outliers_have_larger_distances():
    sample = np.concatenate([crowd(4000), lonely(8)])
    common = KNNOutlierScore(sample)
    near, far = common.distance(crowd(200, seed=2)), common.distance(lonely(8))
    assert near.shape == (200,)
    assert near.dtype == np.float32
    assert far.min() > 2 * near.max()


@pytest.mark.parametrize("count", [79, 150])
def test_the_distance_is_the_median_to_the_hundred_nearest(monkeypatch, count):
    monkeypatch.setattr(outliers, "CELLS", 1)  # one cell: the index is exact
    sample, asked = crowd(count), crowd(20, seed=2)
    every = np.sort(np.linalg.norm(asked[:, None].astype(float) - sample[None], axis=2), axis=1)
    np.testing.assert_allclose(KNNOutlierScore(sample).distance(asked), np.median(every[:, :100], axis=1), atol=1e-2)


@pytest.mark.parametrize("count", [1, 5, 41, 150])
def test_a_small_sample_is_accepted(capfd, count):
    found = KNNOutlierScore(crowd(count)).distance(crowd(30))
    # With 150 points a probed cell holds fewer than the 100 neighbours asked for: those missing do not count.
    assert (found <= 2).all()
    if count >= 40:
        assert "WARNING" not in capfd.readouterr().err  # Faiss has enough points to place every cell


def test_the_same_sample_gives_the_same_distances():
    np.testing.assert_array_equal(*(KNNOutlierScore(crowd(3000)).distance(crowd(50, seed=3)) for _ in range(2)))


def test_no_descriptors_have_no_distances():
    assert KNNOutlierScore(crowd(50)).distance(np.zeros((0, 16), np.float32)).shape == (0,)
