"""The choice of images: diverse, spread, unsure; the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.points.selection import (
    STRATEGIES,
    cluster_middles,
    image_features,
    k_centre,
    principal_components,
    select,
)


def groups(sizes, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Images in groups that are far from each other, and the group of each."""
    rng = np.random.default_rng(seed)
    centres = 10 * np.eye(len(sizes))
    of_image = np.repeat(np.arange(len(sizes)), sizes)
    return centres[of_image] + 0.1 * rng.normal(size=(len(of_image), len(sizes))), of_image


@pytest.mark.parametrize("strategy", ["diverse", "spread"])
def test_near_duplicates_are_taken_once(strategy):
    features, of_image = groups([40, 3, 1, 20, 2])
    chosen = select(features, np.zeros(len(features)), 5, strategy)
    assert sorted(of_image[chosen]) == [0, 1, 2, 3, 4]


def test_the_middle_of_a_group_is_taken_and_not_its_border():
    features, _ = groups([30])
    chosen = cluster_middles(features, 1, np.random.default_rng(0))
    apart = np.linalg.norm(features - features.mean(axis=0), axis=1)
    assert chosen[0] == apart.argmin()


def test_k_centre_takes_the_farthest_image_next():
    line = np.array([0.0, 1, 2, 3, 10])[:, None]
    assert k_centre(line, 3).tolist() == [3, 4, 0]


def test_the_least_sure_images_are_taken():
    unsure = np.array([0.1, 0.9, 0.2, 0.8, 0.3])
    assert select(np.zeros((5, 1)), unsure, 2, "uncertain").tolist() == [1, 3]


def test_both_is_diverse_among_the_less_sure_half():
    features, of_image = groups([10, 10, 10, 10])
    unsure = np.where(of_image % 2 == 0, 1.0, 0.0)
    assert sorted(of_image[select(features, unsure, 2, "both")]) == [0, 2]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [1, 7, 39, 40, 50])
def test_so_many_different_images_are_chosen_whatever_the_images(strategy, count):
    same = np.ones((40, 3))
    for features in (same, groups([20, 20])[0]):
        chosen = select(features, np.linspace(0, 1, 40), count, strategy)
        assert len(set(chosen.tolist())) == len(chosen) == min(count, 40)
        assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_choice_follows_from_the_seed(strategy):
    features = np.random.default_rng(1).normal(size=(200, 6))
    unsure = features[:, 0]
    first, again = (select(features, unsure, 20, strategy, 5) for _ in range(2))
    assert first.tolist() == again.tolist()
    others = [select(features, unsure, 20, strategy, seed).tolist() for seed in range(5)]
    assert (len({tuple(other) for other in others}) > 1) == (strategy in ("random", "diverse", "both"))


def test_landmarks_and_descriptors_count_the_same():
    rng = np.random.default_rng(0)
    features = image_features(rng.normal(size=(50, 4, 2)), 1000 * rng.normal(size=(50, 80)))
    squares = (features**2).mean(axis=0)
    assert squares[:8].sum() == pytest.approx(squares[8:].sum(), rel=1e-6)


def test_a_landmark_that_is_not_detected_is_as_usual():
    xy = np.random.default_rng(0).normal(size=(6, 2, 2))
    xy[2, 1] = np.nan
    features = image_features(xy, np.zeros((6, 3)))
    assert np.isfinite(features).all()
    np.testing.assert_allclose(features[2, 2:4], features[:, 2:4].mean(axis=0), atol=1e-12)


def test_principal_components_keep_distances():
    rows = np.random.default_rng(0).normal(size=(30, 3)) @ np.random.default_rng(1).normal(size=(3, 50))
    kept = principal_components(rows, 3)
    np.testing.assert_allclose(
        np.linalg.norm(kept[:, None] - kept, axis=2), np.linalg.norm(rows[:, None] - rows, axis=2), atol=1e-8
    )
