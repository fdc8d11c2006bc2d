"""SuperPoint (DeTone et al. 2018), in the implementation of transformers (extra `superpoint`): the thesis's own start."""

from __future__ import annotations

import torch
from torch import Tensor

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints.learned import extra

_CONFIDENCE = 0.15
"""Thesis 6.2.1."""
_HUB_NAME = "magic-leap-community/superpoint"
_GREY = (0.2989, 0.5870, 0.1140)


class SuperPoint:
    """`learned.Network`. Weights from a local folder or a hub name."""

    def __init__(self, config: KeypointsConfig, device: torch.device) -> None:
        transformers = extra("transformers", "superpoint")
        source = config.weights or _HUB_NAME
        try:
            self._network = transformers.SuperPointForKeypointDetection.from_pretrained(
                source, keypoint_threshold=config.confidence or _CONFIDENCE, max_keypoints=-1
            )
        except Exception as error:  # the hub's client raises its own kinds, and OSError where there is nothing
            raise ConfigError(
                f"keypoints.weights = {source!r}: neither a folder with SuperPoint's weights nor a model that the hub gives "
                f"({str(error).splitlines()[0][:120]}); download {_HUB_NAME} and give its folder"
            ) from None
        self._network.eval().to(device)
        self._grey = torch.tensor(_GREY, device=device)[None, :, None, None]

    def __call__(self, image_13HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grey = (image_13HW * self._grey).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        found = self._network(pixel_values=grey)
        there = found.mask[0].bool()
        side = torch.tensor([grey.shape[-1], grey.shape[-2]], device=grey.device)
        return found.keypoints[0][there] * side, found.scores[0][there], found.descriptors[0][there]
