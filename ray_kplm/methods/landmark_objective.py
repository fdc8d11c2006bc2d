"""Stage 2: the landmark detector of K channels (thesis 6.1.7, 6.1.8; docs/method.md 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ray_kplm.config import Config
from ray_kplm.methods.batch import Points
from ray_kplm.network import heatmaps, losses
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.schemas import NONE


@dataclass(frozen=True)
class LandmarkObjective:
    """One heatmap a channel; a channel without a label in an image is left alone there."""

    config: Config
    channels: int
    from_scratch: bool = False
    """No network is started from: the backbone knows nothing yet."""

    def network(self) -> LandmarkNetwork:
        return LandmarkNetwork(self.config.network, self.channels)

    def parameter_groups(self, network: nn.Module) -> list[dict]:
        """A backbone that stage 1 has trained learns at a tenth of the head's rate (docs/method.md 4)."""
        assert isinstance(network, LandmarkNetwork)
        stage = self.config.stage2
        factor = 1.0 if self.from_scratch else stage.backbone_factor
        slow = {"params": list(network.backbone.parameters()), "lr": stage.learning_rate * factor}
        fast = {"params": list(network.landmarks.parameters()), "lr": stage.learning_rate}
        return [group | {"weight_decay": stage.weight_decay} for group in (slow, fast)]

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Point p of a view trains channel `identity[p]`: its landmark, or in a mirrored view the partner."""
        heatmaps_BKhw = network(image_B3SS).float()
        landmarks, side = heatmaps_BKhw.shape[1], heatmaps_BKhw.shape[-1]
        xy_BK2, labelled_BK = by_channel(points.xy, points.identity, landmarks)
        target = heatmaps.render(xy_BK2, labelled_BK.float(), side, self.config.stage2.heatmap_sigma)
        loss = losses.masked_mse(heatmaps_BKhw, target, labelled_BK)
        return loss, {"loss": loss, "labelled": labelled_BK.float().sum(1).mean()}


def by_channel(xy_BP2: Tensor, identity_BP: Tensor, landmarks: int) -> tuple[Tensor, Tensor]:
    """Points sorted into their channels: xy (B, K, 2) and labelled bool (B, K).

    Where a flip map is no permutation two points can claim a channel: then neither trains it.
    """
    claim = identity_BP[:, :, None] == torch.arange(landmarks, device=identity_BP.device)
    claim &= (identity_BP != NONE)[:, :, None]
    labelled = claim.sum(1) == 1
    return torch.einsum("bpk,bpc->bkc", claim.to(xy_BP2.dtype), xy_BP2), labelled


def mirrored_mean(heatmaps_BKhw: Tensor, mirrored_BKhw: Tensor, flip_map: Tensor) -> Tensor:
    """Flip at test: the mean of an image's heatmaps and of its mirror image's, turned back and with channels permuted.

    Landmark k of the image is landmark `flip_map[k]` of the mirror image; where that is NONE the image's own heatmap stands. No
    shift, see `imaging.coordinates`.
    """
    both = (heatmaps_BKhw + mirrored_BKhw.flip(-1)[:, flip_map.clamp(min=0)]) / 2
    return torch.where((flip_map != NONE)[:, None, None], both, heatmaps_BKhw)
