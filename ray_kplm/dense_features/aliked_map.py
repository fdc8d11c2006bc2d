"""The map that ALIKED's descriptors are taken from, as dense features (extra `aliked`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from ray_kplm.config import KeypointsConfig
from ray_kplm.keypoints.aliked import Aliked

_CELL = 4
"""Side of a cell of the map, pixels: the network's map has one a pixel, averaged here."""
_OTHER_NETWORKS = ("superpoint", "r2d2")


class AlikedMap:
    """ALIKED's map as `DenseFeatures`: 128 channels (n16) or 64 (t16), averaged over cells of 4 pixels."""

    input_size = 128

    def __init__(self, config: KeypointsConfig, device: torch.device) -> None:
        """Load the network with `keypoints.weights`, or with those of the extra `aliked`.

        The extra's are taken where `keypoints.weights` is empty or belongs to another detector.

        Raises:
            ConfigError: kornia is not installed, or the weights are missing or of another network.
        """
        weights = "" if config.detector in _OTHER_NETWORKS else config.weights
        self._network = Aliked(replace(config, detector="aliked", weights=weights), device)
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the maps of images, see `DenseFeatures`."""
        pixels_BHW3 = torch.from_numpy(images).to(self._device)
        features_BdHW = self._network.dense_map(pixels_BHW3.permute(0, 3, 1, 2).float() / 255)
        cells = (max(1, round(images.shape[1] / _CELL)), max(1, round(images.shape[2] / _CELL)))
        maps_Bhwd = adaptive_avg_pool2d(features_BdHW, cells).permute(0, 2, 3, 1)
        maps: NDArray[np.float32] = maps_Bhwd.float().cpu().numpy()
        return maps
