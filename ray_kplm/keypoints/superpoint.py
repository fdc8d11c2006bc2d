"""SuperPoint (DeTone et al. 2018), in the implementation of transformers (extra `superpoint`), the detector of the thesis."""

from __future__ import annotations

import torch
from torch import Tensor

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints.learned import import_extra, unusable_extra

_CONFIDENCE = 0.15
"""Default threshold (thesis 6.2.1)."""
_HUB_NAME = "magic-leap-community/superpoint"
_GREY = (0.2989, 0.5870, 0.1140)


class SuperPoint:
    """SuperPoint as a `learned.PretrainedNetwork`."""

    def __init__(self, config: KeypointsConfig, device: torch.device) -> None:
        """Load the network with the weights `keypoints.weights`, a local folder or a model name on the hub.

        Raises:
            ConfigError: transformers is not installed, or the weights cannot be loaded.
        """
        transformers = import_extra("transformers", "superpoint", "keypoints.detector = 'superpoint'")
        source = config.weights or _HUB_NAME
        try:
            self._network = transformers.SuperPointForKeypointDetection.from_pretrained(
                source, keypoint_threshold=config.confidence or _CONFIDENCE, max_keypoints=-1
            )
        except ImportError as error:
            raise unusable_extra("keypoints.detector = 'superpoint'", error) from None
        except Exception as error:  # the hub's client raises errors of its own, and OSError for a missing folder
            raise ConfigError(
                f"keypoints.weights = {source!r}: neither a folder with SuperPoint's weights nor a model that the hub provides "
                f"({str(error).splitlines()[0][:120]}); download {_HUB_NAME} and give its folder"
            ) from None
        self._network.eval().to(device)
        self._grey = torch.tensor(_GREY, device=device)[None, :, None, None]

    def __call__(self, image_13HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return keypoints, scores and descriptors of an image, see `learned.PretrainedNetwork`."""
        grey = (image_13HW * self._grey).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        output = self._network(pixel_values=grey)
        valid = output.mask[0].bool()
        side = torch.tensor([grey.shape[-1], grey.shape[-2]], device=grey.device)
        return output.keypoints[0][valid] * side, output.scores[0][valid], output.descriptors[0][valid]
