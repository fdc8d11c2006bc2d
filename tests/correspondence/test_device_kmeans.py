"""K-means on a device: the bits of the CPU's path. The same code runs here on the CPU, and on a GPU where there is one."""

import faiss
import numpy as np
import pytest
import torch

from ray_kplm.config import ClusteringConfig
from ray_kplm.correspondence import device_kmeans
from ray_kplm.correspondence.assignment import nearest, on_grid
from ray_kplm.correspondence.backend import CpuBackend, DeviceBackend
from ray_kplm.correspondence.device_kmeans import DeviceAssigner, DevicePoints
from ray_kplm.correspondence.in_memory import Rows
from ray_kplm.correspondence.kmeans import partial
from ray_kplm.correspondence.starts import draw, plus_plus


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """A device whose blocks are small, so that several are needed."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    monkeypatch.setattr(device_kmeans, "_BLOCK", 1000)
    return torch.device(request.param)


def unit(count, dim=32, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, dim))
    return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.mark.parametrize("spread", [1.0, 1e-4, 2.0**-24])
def test_assignments_are_those_of_the_cpu(device, spread):
    """Also where float32 cannot tell the centroids apart, and where two are equal."""
    points = unit(3500)
    centroids = on_grid(unit(1, seed=1) + spread * np.random.default_rng(2).normal(size=(40, 32)))
    centroids = np.concatenate([centroids, centroids[:7]])
    np.testing.assert_array_equal(DeviceAssigner(centroids, device)(points), nearest(points, centroids))
    assert DeviceAssigner(centroids, device)(points[:0]).tolist() == []


def test_products_are_in_float32_whatever_training_has_set(device):
    torch.set_float32_matmul_precision("medium")
    try:
        points, centroids = unit(2000, dim=256), on_grid(unit(50, dim=256, seed=1))
        np.testing.assert_array_equal(DeviceAssigner(centroids, device)(points), nearest(points, centroids))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("memory", [0, 200_000, 2**30])
def test_sums_are_those_of_the_cpu_in_every_iteration(device, memory):
    """With no, some and all points on the device; the rest is sent in every pass."""
    points = unit(6000)
    halves = [Rows.all_of(points[:2500]), Rows.all_of(points[2500:])]
    held = DevicePoints(halves, device, memory)
    centroids = plus_plus(points, [draw(6000, 20, np.random.default_rng(0))], device)[0]
    centroids[10:] = on_grid(centroids[:10] + 2.0**-24)
    for k in (20, 20, 20, 5, 5):
        centroids = centroids[:k]
        found, expected = held.partial(centroids), partial(points, centroids)
        assert found.sums.tobytes() == expected.sums.tobytes()
        assert found.counts.tobytes() == expected.counts.tobytes()
        centroids = on_grid(found.sums / np.maximum(found.counts, 1)[:, None])


def test_both_backends_give_the_same_fits(device):
    points, options = Rows.all_of(unit(3000)), ClusteringConfig()
    draws = [draw(3000, 8, np.random.default_rng(seed)) for seed in range(3)]
    on_device, on_cpu = DeviceBackend(device, 2**30), CpuBackend(threads=2)
    for one, other in zip(
        on_device.try_starts(points, draws, options), on_cpu.try_starts(points, draws, options), strict=True
    ):
        assert one.objectives == other.objectives
        np.testing.assert_array_equal(one.centroids, other.centroids)
        streamed = [backend.partial([points], one.centroids) for backend in (on_device, on_cpu)]
        assert streamed[0].sums.tobytes() == streamed[1].sums.tobytes()


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or not hasattr(faiss, "StandardGpuResources"), reason="needs CUDA and Faiss for GPUs"
)
def test_faiss_on_a_gpu_finds_the_same_where_float32_can_tell():
    points, centroids = unit(40_000, dim=256), on_grid(unit(100, dim=256, seed=1))
    index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 256)
    index.add(centroids)
    theirs = index.search(points.astype(np.float32), 1)[1][:, 0]
    assert (theirs == DeviceAssigner(centroids, torch.device("cuda"))(points)).mean() > 0.999
