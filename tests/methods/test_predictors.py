"""Predictors: landmarks, and measures of their quality."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.correspondence.assignment import on_grid
from ray_kplm.imaging import coordinates
from ray_kplm.methods.predictors import ClusterPredictor, LandmarkPredictor, assign_unique
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork, LandmarkNetwork
from ray_kplm.schemas import NONE

CONFIG = load_config(
    None,
    ["network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=8"],
)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ]
)
def placement(request):
    return Placement(torch.device(request.param), None, False)


def test_measures_of_cluster_landmarks_are_given_where_they_are_detected(placement):
    """The network has random weights. The last of the four centroids is far from all descriptors."""
    torch.manual_seed(0)
    centroids = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    centroids[3] = 3
    predictor = ClusterPredictor(
        CONFIG,
        KeypointNetwork(CONFIG.network).state_dict(),
        assign_unique(centroids),
        on_grid(centroids),
        0.0,
        placement,
    )
    xy, confidence = predictor(IMAGES)
    seen = predictor.observe(IMAGES)
    np.testing.assert_array_equal(seen.xy, xy)
    np.testing.assert_array_equal(seen.confidence, confidence)
    detected = np.isfinite(xy).all(axis=-1)
    assert detected.any()
    assert not detected[:, 3].any()
    np.testing.assert_array_equal(confidence > 0, detected)
    np.testing.assert_array_equal(np.isfinite(seen.sharpness), detected)
    np.testing.assert_array_equal(np.isfinite(seen.separation), detected)
    assert (seen.separation[detected] >= 0).all()  # the nearest centroid is no farther than any other
    assert (seen.sharpness[detected] >= 0).all()


@pytest.mark.parametrize("flip", [False, True])
def test_measures_of_channels_come_with_the_predicted_landmarks(flip, placement):
    torch.manual_seed(0)
    flip_map = np.array([1, 0, 2, NONE], np.int16)
    predictor = LandmarkPredictor(
        CONFIG, LandmarkNetwork(CONFIG.network, 4).state_dict(), flip_map, placement, flip=flip
    )
    xy, confidence = predictor(IMAGES)
    seen = predictor.observe(IMAGES)
    np.testing.assert_array_equal(seen.xy, xy)
    np.testing.assert_array_equal(seen.confidence, confidence)
    assert seen.sharpness.shape == (3, 4)
    assert ((seen.sharpness >= 0) & (seen.sharpness <= 1)).all()
    assert seen.separation is None


@pytest.mark.parametrize("sigma", [0.75, 2.0])
def test_channels_are_decoded_with_the_sigma_of_their_targets(sigma, placement, monkeypatch):
    config = replace(CONFIG, stage2=replace(CONFIG.stage2, heatmap_sigma=sigma))
    predictor = LandmarkPredictor(
        config, LandmarkNetwork(CONFIG.network, 4).state_dict(), np.arange(4, dtype=np.int16), placement, flip=False
    )
    side = CONFIG.network.image_size // 4
    xy = side / 2 + torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0), device="cpu")
    maps = heatmaps.render(xy, torch.ones(3, 4), side, sigma).to(placement.device)
    monkeypatch.setattr(predictor, "_maps", lambda images: maps)
    found, _ = predictor(IMAGES)
    np.testing.assert_allclose(
        found, coordinates.heatmap_to_input(xy.numpy()), atol=0.25
    )  # pixels: a sixteenth of a cell
    np.testing.assert_array_equal(predictor.observe(IMAGES).xy, found)
