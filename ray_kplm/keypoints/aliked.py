"""ALIKED (Zhao et al. 2023), in kornia's implementation (extra `aliked`), with the authors' weights."""

from __future__ import annotations

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


class Aliked:
    """ALIKED as a `learned.PretrainedNetwork`."""

    def __init__(self, config: KeypointsConfig, device: torch.device) -> None:
        """Load the network with the weights `keypoints.weights`.

        Raises:
            ConfigError: kornia is not installed, or the weights are missing or of another network.
        """
        kornia = import_extra("kornia.feature", "aliked")
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
