"""Points that skip what cannot change: the same sums as a plain pass, bit for bit, whatever passes came before."""

import numpy as np
import pytest

from ray_kplm.correspondence import in_memory
from ray_kplm.correspondence.assignment import Assigner, on_grid
from ray_kplm.correspondence.in_memory import InMemoryPoints, Rows
from ray_kplm.correspondence.kmeans import Partial, partial, point_totals
from ray_kplm.correspondence.starts import draw, plus_plus


def noisy(count: int, dim: int = 16, groups: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(groups, dim))[rng.integers(0, groups, count)] + 0.5 * rng.normal(size=(count, dim))
    return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))


def start(points, k, seed=0):
    return plus_plus(points[:2000], [draw(2000, k, np.random.default_rng(seed))])[0]


def assert_same(found: Partial, expected: Partial):
    assert found.sums.tobytes() == expected.sums.tobytes()
    assert found.counts.tobytes() == expected.counts.tobytes()


def iterations(points, centroids, count):
    """The centroids of some iterations of K-means, and plain passes with them."""
    for _ in range(count):
        expected = partial(points, centroids)
        yield centroids, expected
        centroids = on_grid(expected.sums / np.maximum(expected.counts, 1)[:, None])


@pytest.mark.parametrize("threads", [1, 3])
def test_every_iteration_gives_the_bits_of_a_plain_pass(threads):
    points = noisy(10_000)
    rows = np.flatnonzero(np.random.default_rng(1).random(5000) < 0.7).astype(np.int32)
    every = Rows.all_of(points[5000:])
    some = Rows(points[:5000], rows, Rows.all_of(points[:5000]).squares[rows])
    held, used = InMemoryPoints([some, every], threads), np.concatenate([points[rows], points[5000:]])
    assert held.totals() == point_totals(used)
    for centroids, expected in iterations(used, start(points, 20), 15):
        assert_same(held.partial(centroids), expected)


@pytest.mark.parametrize("k", [1, 2, 20])
def test_centroids_that_jump_shift_by_a_hair_or_change_their_number(k):
    points, rng = noisy(3000), np.random.default_rng(2)
    held, centroids = InMemoryPoints([Rows.all_of(points)]), start(points, k)
    for change in (0.0, 2.0**-24, 1e-3, 2.0**-24, 0.3, 1e-4, 0.0):
        centroids = on_grid(centroids + change * rng.normal(size=centroids.shape))
        assert_same(held.partial(centroids), partial(points, centroids))
        doubled = np.concatenate([centroids, on_grid(centroids + 2.0**-24)])  # that float32 cannot tell apart
        other = InMemoryPoints([Rows.all_of(points)])
        assert_same(other.partial(doubled), partial(points, doubled))
        assert_same(other.partial(doubled[::-1].copy()), partial(points, doubled[::-1].copy()))
    assert_same(held.partial(centroids[: k // 2 + 1]), partial(points, centroids[: k // 2 + 1]))


def test_points_that_cannot_change_are_not_looked_at(monkeypatch):
    points, seen = noisy(6000), []

    class Watched(Assigner):
        def nearest(self, points, largest_square):
            seen.append(len(points))
            return super().nearest(points, largest_square)

    monkeypatch.setattr(in_memory, "Assigner", Watched)
    held, looked = InMemoryPoints([Rows.all_of(points)]), []
    for centroids, _ in iterations(points, start(points, 12), 12):
        seen.clear()
        held.partial(centroids)
        looked.append(sum(seen))
    assert looked[0] == len(points)
    assert looked[-1] < 0.2 * len(points)


def test_no_points_have_no_sums():
    held = InMemoryPoints([])
    assert (held.totals().points, held.totals().squares) == (0, 0)
    assert not held.partial(on_grid(np.eye(3))).counts.any()
