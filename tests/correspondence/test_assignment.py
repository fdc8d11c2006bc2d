"""The nearest centroid, exactly: also for centroids equal in float32, in any block, and with the lower index on a tie."""

import threading
import time

import faiss
import numpy as np
import pytest
import torch

from ray_kplm.correspondence.assignment import (
    BLOCK,
    Assigner,
    Search,
    as_float32,
    exact_scores,
    faiss_search,
    gpu_search,
    nearest,
    on_grid,
    squared_distance,
    torch_search,
)


def unit(count, dim=32, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, dim))
    return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))


def slow(points, centroids):
    """By definition, in whole numbers: descriptors and centroids are multiples of 2^-24."""
    x = [[int(v) for v in row] for row in points.astype(np.float64) * 2**24]
    c = [[int(v) for v in row] for row in centroids.astype(np.float64) * 2**24]
    distances = [[sum((a - b) ** 2 for a, b in zip(row, centre, strict=True)) for centre in c] for row in x]
    return [row.index(min(row)) for row in distances]


def test_assignments_are_the_nearest_centroids_by_definition():
    points, centroids = unit(200), on_grid(unit(9, seed=1))
    found = nearest(points, centroids)
    assert found.tolist() == slow(points, centroids)
    assert found.dtype == np.int32
    every = ((points[:, None].astype(float) - centroids[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distance(points, centroids, found), every.min(1), rtol=1e-12)


def test_centroids_that_are_equal_in_float32_are_assigned_exactly():
    points = unit(300)
    base = unit(1, seed=1).astype(np.float64)
    # Twelve centroids on one spot, but for steps of the grid: differences of distances are near 1e-7.
    steps = np.random.default_rng(2).integers(-2, 3, (12, 32)) * 2.0**-24
    centroids = on_grid(base + steps)
    truth = slow(points, centroids)
    float32 = faiss_search().prepare(centroids)(as_float32(points))[1][:, 0]
    assert (float32 != truth).mean() > 0.05  # the case is one: a plain float32 search is wrong
    assert nearest(points, centroids).tolist() == truth


def test_ties_go_to_the_lower_index():
    points = unit(500)
    centre = on_grid(unit(4, seed=3))
    assert set(nearest(points, np.concatenate([centre, centre])).tolist()) <= {0, 1, 2, 3}
    mirrored = on_grid(np.array([[0.5, 0.25], [0.5, -0.25]]))
    assert nearest(np.float16([[1, 0], [0.3, 0]]), mirrored).tolist() == [0, 0]
    assert nearest(np.float16([[1, 0], [0.3, 0]]), mirrored[::-1].copy()).tolist() == [0, 0]


@pytest.mark.parametrize("cut", [1, 7, 1000, BLOCK, 3 * BLOCK])
def test_the_split_into_blocks_does_not_change_assignments(cut):
    points, centroids = unit(2 * BLOCK + 5, dim=8), on_grid(unit(50, dim=8, seed=1))
    whole = nearest(points, centroids)
    if cut == 1:
        points, whole = points[:50], whole[:50]
    pieces = [nearest(points[start : start + cut], centroids) for start in range(0, len(points), cut)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_another_search_gives_the_same_assignment():
    points = unit(1000)
    centroids = on_grid(unit(1, seed=1) + np.random.default_rng(2).normal(size=(40, 32)) * 1e-4)
    expected = nearest(points, centroids)
    np.testing.assert_array_equal(nearest(points, centroids, torch_search(torch.device("cpu"))), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_same_assignment():
    points = unit(20_000, dim=256)
    centroids = on_grid(unit(100, dim=256, seed=1))
    expected = nearest(points, centroids)
    np.testing.assert_array_equal(nearest(points, centroids, torch_search(torch.device("cuda"))), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="needs GPU Faiss")
def test_faiss_on_a_gpu_gives_the_same_assignment():
    points = unit(40_000, dim=256)
    centroids = on_grid(unit(1, dim=256, seed=1) + np.random.default_rng(2).normal(size=(100, 256)) * 1e-4)
    np.testing.assert_array_equal(nearest(points, centroids, gpu_search()), nearest(points, centroids))


def watched(parallel: bool) -> tuple[Search, list[int], list[int]]:
    """A search on the CPU, how many threads were in it at each call, and the lengths of what it was sent."""
    active, seen, lengths, lock = [0], [], [], threading.Lock()

    def prepare(centroids):
        def find(points):
            with lock:
                active[0] += 1
                seen.append(active[0])
                lengths.append(len(points))
            time.sleep(0.001)  # others would come in
            found = faiss.knn(points, centroids, 2)
            with lock:
                active[0] -= 1
            return found

        return find

    return Search(prepare, block=100, parallel=parallel), seen, lengths


@pytest.mark.parametrize("shared", [True, False])
def test_a_search_that_is_not_parallel_has_one_caller_at_a_time(shared):
    """Also where threads have prepared other centroids: what is not to be shared is the search."""
    points = unit(1000)
    some = [on_grid(unit(9, seed=seed)) for seed in range(1, 5)]
    search, seen, lengths = watched(parallel=False)
    one = Assigner(some[0], search)
    assign = [one] * 4 if shared else [Assigner(centroids, search) for centroids in some]
    found = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: assign[i](points)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 40
    assert set(lengths) == {100}
    for i in range(4):
        np.testing.assert_array_equal(found[i], nearest(points, some[0 if shared else i]))


def test_scores_are_exact():
    points, centroids = unit(50, dim=256), on_grid(unit(5, dim=256, seed=1))
    order = np.random.default_rng(0).permutation(256)
    np.testing.assert_array_equal(exact_scores(points, centroids), exact_scores(points[:, order], centroids[:, order]))


def test_no_points_or_a_single_centroid_need_no_search():
    assert nearest(unit(0), on_grid(unit(3))).tolist() == []
    assert nearest(unit(3), on_grid(unit(1))).tolist() == [0, 0, 0]
