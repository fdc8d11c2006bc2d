"""Stage 2: the loss of the landmark detector, one channel per landmark (thesis 6.1.7, 6.1.8; docs/method.md 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ray_kplm.config import Config
from ray_kplm.methods.batch import Points
from ray_kplm.network import heatmaps, losses
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.schemas import NONE


@dataclass(frozen=True)
class LandmarkObjective:
    """Mean squared error between each channel and a Gaussian at its landmark, where the image has a label for it."""

    config: Config
    channels: int
    from_scratch: bool = False
    """Whether the backbone starts from random weights, not from those of stage 1."""

    def network(self) -> LandmarkNetwork:
        """Return a network with random weights."""
        return LandmarkNetwork(self.config.network, self.channels)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return groups of backbone and head. A backbone that stage 1 trained has a lower rate (docs/method.md 4)."""
        assert isinstance(network, LandmarkNetwork)
        stage = self.config.stage2
        factor = 1.0 if self.from_scratch else stage.backbone_factor
        slow = {"params": list(network.backbone.parameters()), "lr": stage.learning_rate * factor}
        fast = {"params": list(network.landmarks.parameters()), "lr": stage.learning_rate}
        return [group | {"weight_decay": stage.weight_decay} for group in (slow, fast)]

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts (scalars).

        Point p of a view trains channel `identity[p]`: that of its landmark, or in a mirrored view that of the partner.
        """
        heatmaps_BKhw = network(image_B3SS).float()
        landmarks, side = heatmaps_BKhw.shape[1], heatmaps_BKhw.shape[-1]
        xy_BK2, labelled_BK = by_channel(points.xy, points.identity, landmarks)
        target = heatmaps.render(xy_BK2, labelled_BK.float(), side, self.config.stage2.heatmap_sigma)
        loss = losses.masked_mse(heatmaps_BKhw, target, labelled_BK)
        return loss, {"loss": loss, "labelled": labelled_BK.float().sum(1).mean()}

    def random_cells(self, views: int, generator: torch.Generator) -> Tensor | None:
        """Return None: nothing is drawn."""
        return None


def by_channel(xy_BP2: Tensor, identity_BP: Tensor, landmarks: int) -> tuple[Tensor, Tensor]:
    """Sort points into their channels.

    Two points of a mirrored view can have the same channel if the flip map is not a permutation. Then neither trains it.

    Args:
        xy_BP2: points.
        identity_BP: the channel of each point, or NONE.
        landmarks: K, the number of channels.

    Returns:
        The point of each channel, (B, K, 2), and whether it has one, bool (B, K).
    """
    claim = identity_BP[:, :, None] == torch.arange(landmarks, device=identity_BP.device)
    claim &= (identity_BP != NONE)[:, :, None]
    labelled = claim.sum(1) == 1
    return torch.einsum("bpk,bpc->bkc", claim.to(xy_BP2.dtype), xy_BP2), labelled


def mirrored_mean(heatmaps_BKhw: Tensor, mirrored_BKhw: Tensor, flip_map: Tensor) -> Tensor:
    """Return the mean of an image's heatmaps and those of its mirror image, for test time (thesis 6.1.8).

    The latter are flipped back, and their channels permuted: landmark k of the image is landmark `flip_map[k]` of the mirror
    image. Where that is NONE, the image's own heatmap is returned. No shift by a cell is needed, see `imaging.coordinates`.

    Args:
        heatmaps_BKhw: of the image.
        mirrored_BKhw: of the mirror image.
        flip_map: int64 (K,).
    """
    both = (heatmaps_BKhw + mirrored_BKhw.flip(-1)[:, flip_map.clamp(min=0)]) / 2
    return torch.where((flip_map != NONE)[:, None, None], both, heatmaps_BKhw)
