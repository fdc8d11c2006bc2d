"""ALIKED (Zhao et al. 2023), in kornia's implementation (extra `aliked`), with the authors' weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints.learned import extra, load_state, local_weights

_CONFIDENCE = 0.2
"""The authors'."""
_FIRST_LAYER = "block1.conv1.weight"
_WIDTHS = {8: "aliked-t16", 16: "aliked-n16"}
"""Which model a checkpoint is of, by the width of its first layer; n16rot has n16's shapes."""


class Aliked:
    """`learned.Network`."""

    def __init__(self, config: KeypointsConfig, device: torch.device) -> None:
        kornia = extra("kornia.feature", "aliked")
        state = local_weights(config)
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
        (found,) = self._network(image_13HW)
        return found.keypoints, found.keypoint_scores, found.descriptors
