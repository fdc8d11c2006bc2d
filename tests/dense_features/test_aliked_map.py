"""ALIKED's map, with random weights of the network's shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.dense_features import build_features, describe_images
from ray_kplm.dense_features.feature_map import GRID
from ray_kplm.errors import ConfigError

kornia = pytest.importorskip("kornia.feature")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    state = {name: v for name, v in kornia.ALIKED("aliked-t16").state_dict().items() if not name.startswith("dkd.")}
    path = tmp_path_factory.mktemp("weights") / "t16.pth"
    torch.save(state, path)
    return str(path)


def test_the_map_has_a_cell_for_4_pixels(weights):
    features = build_features(load_config(None, ["features=aliked", f"keypoints.weights={weights}"]))
    images = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    maps = features(images)
    assert maps.shape == (2, 12, 16, 64)
    assert maps.dtype == np.float32
    assert np.linalg.norm(maps, axis=-1).max() <= 1 + 1e-5  # a mean of unit vectors
    np.testing.assert_allclose(features(images[1:])[0], maps[1], atol=1e-5)
    assert describe_images(features, list(images)).shape == (2, GRID * GRID * 64)


def test_weights_of_another_detector_are_not_taken_for_aliked(monkeypatch):
    monkeypatch.setattr("ray_kplm.keypoints.aliked.find_spec", lambda name: None)
    config = load_config(None, ["features=aliked", "keypoints.detector=r2d2", "keypoints.weights=r2d2.pt"])
    with pytest.raises(ConfigError, match=r"keypoints\.weights = '': .*pip install 'ray-kplm\[aliked\]'"):
        build_features(config)
