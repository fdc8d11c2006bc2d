"""Mirror partners of clusters."""

from __future__ import annotations

import numpy as np

from ray_kplm.correspondence.flip import best_involution, flip_counts, flip_map, is_involution, mirror_pairs
from ray_kplm.schemas import NONE

MIRROR = np.array([1, 0, 2, 4, 3])


def noisy(seed: int, count: int):
    """Clusters and their mirror, a third of it wrong."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 5, count).astype(np.int16)
    wrong = rng.random(count) < 1 / 3
    return cluster, np.where(wrong, rng.integers(0, 5, count), MIRROR[cluster]).astype(np.int16)


def test_a_known_mirror_is_recovered_from_noise():
    partner = flip_map(flip_counts(*noisy(0, 2000), 5))
    np.testing.assert_array_equal(partner, MIRROR)
    assert is_involution(partner)


def test_repeated_pairs_are_counted_each_time():
    counts = flip_counts(np.array([0, 0, 0, 2], np.int16), np.array([1, 1, 2, 0], np.int16), 3)
    np.testing.assert_array_equal(counts, [[0, 2, 1], [0, 0, 0], [1, 0, 0]])


def test_counts_of_disjoint_sets_add_up():
    cluster, flipped = noisy(1, 300)
    parts = [flip_counts(cluster[i::3], flipped[i::3], 5) for i in range(3)]
    np.testing.assert_array_equal(sum(parts), flip_counts(cluster, flipped, 5))
    assert sum(parts).sum() == 300


def test_large_clusters_do_not_overflow():
    counts = flip_counts(np.array([999], np.int16), np.array([998], np.int16), 1000)
    assert counts[999, 998] == 1


def test_a_cluster_never_seen_is_its_own_partner():
    counts = np.zeros((4, 4), np.int64)
    counts[0, 1] = counts[1, 0] = 5
    np.testing.assert_array_equal(flip_map(counts), [1, 0, 2, 3])
    assert flip_map(counts).dtype == np.int16


def test_the_partner_has_the_largest_count_of_the_row():
    np.testing.assert_array_equal(flip_map(np.array([[0, 5, 0], [1, 0, 3], [0, 0, 4]])), [1, 2, 2])


def test_is_involution_accepts_pairs_and_fixed_points_only():
    assert is_involution(np.array([1, 0, 2]))
    assert is_involution(np.arange(3))
    assert not is_involution(np.array([1, 2, 0]))
    assert not is_involution(np.array([1, 1, 2]))


def involutions(size: int) -> list[list[int]]:
    """All involutions of 0 .. size - 1."""
    if size == 0:
        return [[]]
    last = size - 1
    alone = [[*smaller, last] for smaller in involutions(last)]
    paired = []
    for partner in range(last):
        others = [i for i in range(last) if i != partner]
        for smaller in involutions(size - 2):
            whole = list(range(size))
            whole[partner], whole[last] = last, partner
            for place, target in zip(others, smaller, strict=True):
                whole[place] = others[target]
            paired.append(whole)
    return alone + paired


INVOLUTIONS = {size: np.array(involutions(size)) for size in range(1, 8)}


def test_the_reference_search_lists_all_involutions():
    assert [len(INVOLUTIONS[size]) for size in range(1, 8)] == [1, 2, 4, 10, 26, 76, 232]
    assert all(is_involution(partner) for partner in INVOLUTIONS[6])


def random_mutual(seed: int) -> np.ndarray:
    """Mutual rates (K, K), K up to 7: of random counts, every third time with many ties."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 8)
    counts = rng.integers(0, 4 if seed % 3 == 0 else 100, (size, size))
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return (rates + rates.T) / 2


def test_the_pairing_is_the_best_involution():
    worse = []
    for seed in range(300):
        mutual = random_mutual(seed)
        indices = np.arange(len(mutual))
        partner = best_involution(mutual)
        assert is_involution(partner)
        best = mutual[indices, INVOLUTIONS[len(mutual)]].sum(axis=1).max()
        if mutual[indices, partner].sum() < best - 1e-9:
            worse.append(seed)
    assert worse == []


def test_two_clusters_that_gain_nothing_are_not_paired():
    # Float rounding alone makes 2 x 0.3 differ from 0.1 + 0.5.
    assert best_involution(np.array([[0.1, 0.3], [0.3, 0.5]])).tolist() == [0, 1]
    assert best_involution(np.full((5, 5), 0.2)).tolist() == [0, 1, 2, 3, 4]
    assert best_involution(np.zeros((0, 0))).tolist() == []


def test_a_hundred_clusters_are_paired():
    truth = np.arange(100) ^ 1
    counts = np.random.default_rng(0).poisson(2, (100, 100))
    counts[np.arange(100), truth] += 500
    assert mirror_pairs(counts).tolist() == truth.tolist()


def test_mirror_pairs_agree_with_the_argmax_of_clear_counts():
    truth = np.array([1, 0, 2, 4, 3, 5])
    counts = np.random.default_rng(0).integers(0, 10, (6, 6))
    counts[np.arange(6), truth] += 100
    assert mirror_pairs(counts).tolist() == truth.tolist() == flip_map(counts).tolist()


def test_two_clusters_never_share_a_partner():
    counts = np.array([[0, 0, 90, 10], [0, 5, 50, 45], [95, 2, 0, 3], [10, 70, 0, 20]])
    assert flip_map(counts).tolist() == [2, 2, 0, 1]
    assert mirror_pairs(counts).tolist() == [2, 3, 0, 1]


def test_a_cluster_found_on_one_side_only_has_no_partner():
    # Mirrored, 3 falls into 1 (which has its own partner, 2) and nothing falls into it.
    counts = np.array([[99, 0, 1, 0], [0, 5, 95, 0], [0, 93, 7, 0], [0, 70, 30, 0]])
    assert flip_map(counts).tolist() == [0, 2, 1, 1]
    partner = mirror_pairs(counts)
    assert partner.tolist() == [0, 2, 1, NONE]
    assert is_involution(partner)
