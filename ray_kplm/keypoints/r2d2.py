"""R2D2 (Revaud et al. 2019): repeatable and reliable keypoints, implemented from the paper, for the authors' weights.

These weights are for non-commercial use (CC BY-NC-SA 3.0).
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints.learned import load_local_weights, load_state

_CONFIDENCE = 0.7
"""Default threshold of the authors, of repeatability and of reliability."""
_LAYERS = (
    (32, 3, 1), (32, 3, 1), (64, 3, 2), (64, 3, 1), (128, 3, 2), (128, 3, 1), (128, 2, 2), (128, 2, 2), (128, 2, 2),
)  # fmt: skip
"""Channels, kernel side and stride of each layer. A stride dilates the later layers and does not shrink the map (paper 3.4)."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_log = logging.getLogger(__name__)


class _Backbone(nn.Module):
    """The network; attribute names are those of the authors' weights."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        layers: list[nn.Module] = []
        width, dilation = 3, 1
        for number, (channels, kernel, stride) in enumerate(_LAYERS):
            padding = (kernel - 1) * dilation // 2
            layers.append(nn.Conv2d(width, channels, kernel, padding=padding, dilation=dilation))
            if number < len(_LAYERS) - 1:
                layers.append(nn.BatchNorm2d(channels, affine=False))
            if kernel == 3:
                layers.append(nn.ReLU())
            width, dilation = channels, dilation * stride
        self.ops = nn.Sequential(*layers)
        self.clf = nn.Conv2d(width, 2, 1)
        self.sal = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return descriptors 1dHW, reliability 1HW and repeatability 1HW of a normalised image."""
        features = self.ops(image)
        squared = features**2
        repeatable = F.softplus(self.sal(squared))[:, 0]
        return F.normalize(features, dim=1), self.clf(squared).softmax(1)[:, 1], repeatable / (1 + repeatable)


class R2D2:
    """R2D2 as a `learned.PretrainedNetwork`."""

    def __init__(self, config: KeypointsConfig, device: torch.device) -> None:
        """Load the network with the weights `keypoints.weights`.

        Raises:
            ConfigError: The weights are missing or of another network.
        """
        state = load_local_weights(config).get("state_dict")
        if not isinstance(state, dict):
            raise ConfigError(f"keypoints.weights = {config.weights!r}: not a checkpoint of R2D2: it has no state_dict")
        self._network = _Backbone()
        load_state(self._network, {name.removeprefix("module."): value for name, value in state.items()}, config)
        self._network.to(device)
        self._threshold = config.confidence or _CONFIDENCE
        self._mean = torch.tensor(_MEAN, device=device)[None, :, None, None]
        self._std = torch.tensor(_STD, device=device)[None, :, None, None]
        _log.warning("R2D2's weights (%s) are for non-commercial use: CC BY-NC-SA 3.0", config.weights)

    def __call__(self, image_13HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keypoints, scores and descriptors of an image, see `learned.PretrainedNetwork`."""
        descriptors, reliable, repeatable = self._network((image_13HW - self._mean) / self._std)
        peak = repeatable == F.max_pool2d(repeatable, 3, stride=1, padding=1)
        detected = peak & (repeatable >= self._threshold) & (reliable >= self._threshold)
        _, y, x = detected.nonzero().unbind(1)
        score = (reliable * repeatable)[0, y, x]
        return torch.stack([x, y], dim=1).float(), score, descriptors[0, :, y, x].t()
