"""Greedy k-means++: what it finds, and that it gives the same starts in any company, on any number of threads."""

import numpy as np
import pytest
import torch

from ray_kplm.correspondence.assignment import as_float32, nearest, on_grid
from ray_kplm.correspondence.in_memory import InMemoryPoints, Rows
from ray_kplm.correspondence.kmeans import fit
from ray_kplm.correspondence.starts import draw, plus_plus

CENTRES = np.eye(6, 12) * np.array([1, -1, 1, -1, 1, -1])[:, None]


def mixture(count: int = 900, spread: float = 0.08) -> tuple[np.ndarray, np.ndarray]:
    """float16 (count, 12) about CENTRES, and of which centre."""
    rng = np.random.default_rng(0)
    of = rng.integers(0, len(CENTRES), count)
    return np.float16(CENTRES[of] + spread * rng.normal(size=(count, 12))), of


def draws(points, seeds, k: int = 6):
    return [draw(len(points), k, np.random.default_rng(seed)) for seed in seeds]


def start(points, seed: int, k: int = 6):
    return plus_plus(points, draws(points, [seed], k))[0]


def by_definition(sample, k, rng):
    """One start, in float64 throughout, centre by centre."""
    points = as_float32(sample).astype(np.float64)
    chosen = [int(rng.integers(len(points)))]
    closest = ((points - points[chosen[0]]) ** 2).sum(1)
    for _ in range(1, k):
        cumulative = closest.cumsum()
        drawn = rng.random(2 + int(np.log(k))) * cumulative[-1]
        candidates = np.searchsorted(cumulative, drawn)
        remaining = [np.minimum(closest, ((points - points[one]) ** 2).sum(1)) for one in candidates]
        best = int(np.argmin([one.sum() for one in remaining]))
        chosen.append(int(candidates[best]))
        closest = remaining[best]
    return on_grid(points[chosen])


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_starts_are_those_by_definition_from_one_generator(spread):
    points, _ = mixture(3000, spread)
    mine, theirs = np.random.default_rng(1), np.random.default_rng(1)
    found = plus_plus(points, [draw(len(points), 20, mine) for _ in range(4)])
    np.testing.assert_array_equal(found, [by_definition(points, 20, theirs) for _ in range(4)])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_starts_do_not_depend_on_threads_device_or_company(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    points, _ = mixture(5000, 0.5)
    together = plus_plus(points, draws(points, range(5), 15), torch.device(device), threads=1)
    np.testing.assert_array_equal(plus_plus(points, draws(points, range(5), 15), threads=3), together)
    np.testing.assert_array_equal(start(points, 3, 15), together[3])


def test_starts_are_seeded_and_take_points():
    points, _ = mixture()
    assert not np.array_equal(start(points, 3), start(points, 4))
    rows = {row.tobytes() for row in points.astype(np.float32)}
    assert {row.tobytes() for row in start(points, 3)} <= rows


def test_starts_spread_their_centres():
    points, of = mixture(spread=0.01)
    of_row = {row.tobytes(): c for row, c in zip(points.astype(np.float32), of, strict=True)}
    # Uniform choices would hit all six centres in 6! / 6^6 = 1.5 % of the starts.
    hits = [len({of_row[row.tobytes()] for row in one}) == 6 for one in plus_plus(points, draws(points, range(20)))]
    assert np.mean(hits) > 0.9


def test_greedy_starts_find_all_groups_in_noise():
    """Ten tight groups of unequal size among noise: with one candidate a centre, 11 of 20 starts find them all."""
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(32, 32)))[0][:10]
    of = np.repeat(np.arange(10), [600, 500, 400, 400, 300, 200, 200, 100, 100, 80])
    groups = centres[of] + 0.03 * rng.normal(size=(len(of), 32))
    noise = rng.normal(size=(500, 32))
    points = np.concatenate([groups, noise / np.linalg.norm(noise, axis=1, keepdims=True)]).astype(np.float16)
    found = []
    for one in plus_plus(points, draws(points, range(20), 10)):
        clustering = fit(InMemoryPoints([Rows.all_of(points)]), [one], iterations=20, tolerance=1e-4)
        nearest_centroid = nearest(centres.astype(np.float16), clustering.centroids)
        found.append(len(set(nearest_centroid.tolist())) == 10)
    assert np.mean(found) >= 0.8


def test_equal_points_are_accepted():
    points = np.ones((4, 3), np.float16)
    assert start(points, 0, 3).tolist() == [[1.0] * 3] * 3
    assert start(points, 0, 1).tolist() == [[1.0] * 3]
