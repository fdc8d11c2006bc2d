"""At most one keypoint of a cluster in an image."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.correspondence.duplicates import keep_nearest
from ray_kplm.schemas import NONE


def slow(image, cluster, distance):
    keep = np.zeros(len(image), bool)
    for i in range(len(image)):
        rivals = [j for j in range(len(image)) if image[j] == image[i] and cluster[j] == cluster[i]]
        keep[i] = cluster[i] != NONE and min(rivals, key=lambda j: (distance[j], j)) == i
    return keep


@pytest.mark.parametrize("seed", range(5))
def test_kept_keypoints_are_those_of_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    image, cluster = rng.integers(0, 8, 120), rng.integers(NONE, 6, 120).astype(np.int16)
    distance = rng.integers(0, 5, 120).astype(np.float32)  # with ties
    np.testing.assert_array_equal(keep_nearest(image, cluster, distance), slow(image, cluster, distance))


def test_the_nearest_keypoint_is_kept():
    keep = keep_nearest(np.array([0, 0, 0, 1]), np.array([2, 2, 1, 2]), np.array([0.5, 0.1, 0.9, 0.7]))
    assert keep.tolist() == [False, True, True, True]


def test_the_first_of_equally_near_keypoints_is_kept():
    assert keep_nearest(np.zeros(3, int), np.zeros(3, int), np.ones(3)).tolist() == [True, False, False]


def test_many_images_and_clusters_do_not_mix():
    # 131,076 images of 32,767 clusters end 4 short of 2^32: in 32 bits the first two would be one.
    image = np.array([131_076, 0, 131_076, 0], np.int32)
    cluster = np.array([4, 0, 32_766, 32_766], np.int16)
    assert keep_nearest(image, cluster, np.ones(4, np.float32)).all()


def test_keypoints_without_a_cluster_are_dropped_and_an_empty_input_is_valid():
    assert not keep_nearest(np.zeros(3, int), np.full(3, NONE), np.zeros(3)).any()
    assert keep_nearest(np.zeros(0, int), np.zeros(0, int), np.zeros(0)).shape == (0,)
