"""Descriptors in the plane, and whose names the clusters of an earlier round get."""

import numpy as np

from ray_kplm.report.embedding import Described, match_by_place, sampled, tsne


def described(image, xy, cluster):
    cluster = np.asarray(cluster)
    return Described(np.asarray(image), np.asarray(xy, float), np.zeros((len(cluster), 2), np.float16), cluster)


def test_groups_of_descriptors_stay_apart():
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    group = np.repeat(np.arange(3), 20)
    descriptors = (centres[group] + rng.normal(0, 0.02, (60, 8))).astype(np.float16)
    plane = tsne(descriptors, seed=0)
    middles = np.stack([plane[group == g].mean(axis=0) for g in range(3)])
    nearest = np.linalg.norm(plane[:, None] - middles, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, group)


def test_a_sample_is_seeded_and_keeps_points_whole():
    points = described(np.arange(100), np.arange(200).reshape(100, 2), np.arange(100))
    few = sampled(points, seed=1, most=10)
    assert len(few.image) == 10
    np.testing.assert_array_equal(few.xy[:, 0], 2 * few.cluster)
    np.testing.assert_array_equal(few.image, sampled(points, seed=1, most=10).image)
    assert sampled(points, seed=1) is points


def test_clusters_get_the_names_of_what_lies_at_their_places():
    last = described([0, 0, 1, 1], [[0.1, 0.1], [0.9, 0.9], [0.2, 0.2], [0.8, 0.8]], [0, 1, 0, 1])
    first = described(
        [0, 0, 1, 1, 1], [[0.9, 0.91], [0.11, 0.1], [0.8, 0.8], [0.2, 0.2], [0.5, 0.5]], [0, 2, 0, 2, 1]
    )  # cluster 1 lies where nothing is
    assert match_by_place(first, last, landmarks=2).tolist() == [1, -1, 0]


def test_two_clusters_at_one_place_share_no_name():
    last = described([0, 1, 2], [[0.5, 0.5]] * 3, [0, 0, 0])
    first = described([0, 1, 2], [[0.5, 0.5]] * 3, [0, 1, 1])
    assert match_by_place(first, last, landmarks=1).tolist() == [-1, 0]
