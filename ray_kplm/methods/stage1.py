"""Stage 1: what a training step on pairs minimises (thesis 6.1.4, 6.1.5; METHOD 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ray_kplm.config import Config
from ray_kplm.network import heatmaps, losses
from ray_kplm.network.hourglass import KeypointNetwork


@dataclass(frozen=True)
class PairObjective:
    """Detector and descriptors from pairs of views, whose points correspond by equal identity.

    Picklable and free of weights. across: whether an identity means the same in every image, as a cluster does; in the warm-up
    it is a keypoint's index and means nothing outside its pair.
    """

    config: Config
    across: bool

    def network(self) -> KeypointNetwork:
        return KeypointNetwork(self.config.network)

    def parameter_groups(self, network: nn.Module) -> list[dict]:
        stage = self.config.stage1
        return [{"params": list(network.parameters()), "lr": stage.learning_rate, "weight_decay": stage.weight_decay}]

    def loss(
        self,
        network: nn.Module,
        image_B3SS: Tensor,
        xy_BP2: Tensor,
        valid_BP: Tensor,
        identity_BP: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Views 2i and 2i + 1 are a pair. Points in the heatmap frame. Returns the loss and its parts (scalars)."""
        stage = self.config.stage1
        logits_Bhw, map_Bdhw = network(image_B3SS)
        logits_Bhw, map_Bdhw = logits_Bhw.float(), map_Bdhw.float()
        target = heatmaps.render(xy_BP2, valid_BP.float(), logits_Bhw.shape[-1], stage.heatmap_sigma).amax(1)
        # Total = 10 * descriptor + detector(image 1) + detector(image 2): twice the mean over both.
        detector = 2 * losses.detector_loss(logits_Bhw.sigmoid(), target)
        descriptor, parts = self._descriptor_loss(map_Bdhw, xy_BP2, valid_BP, identity_BP, generator)
        loss = stage.descriptor_weight * descriptor + detector
        return loss, {"loss": loss, "detector": detector, "descriptor": descriptor, **parts}

    def _descriptor_loss(
        self, map_Bdhw: Tensor, xy_BP2: Tensor, valid_BP: Tensor, identity_BP: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stage = self.config.stage1
        side = map_Bdhw.shape[-1]
        random_xy = self._random_cells(xy_BP2, side, generator)
        points = heatmaps.read_cells(map_Bdhw, xy_BP2)
        background = heatmaps.read_cells(map_Bdhw, random_xy)
        if self.across and stage.positives == "batch":
            squared, positive = losses.batch_terms(points, identity_BP)
        else:
            squared, positive = losses.pair_terms(points[0::2], points[1::2], identity_BP[0::2], identity_BP[1::2])
        pull, positives = (squared * positive).sum(), positive.sum()
        push_B, negatives_B = losses.same_image_negatives(
            points,
            xy_BP2,
            valid_BP,
            background,
            random_xy,
            margin=stage.margin,
            minimum_distance=stage.negative_distance * side,
        )
        push, negatives = push_B.sum(), negatives_B.sum()
        pull_mean, push_mean = pull / positives.clamp(min=1), push / negatives.clamp(min=1)
        if stage.pair_weighting == "balanced":
            total = pull_mean + push_mean
        else:
            total = (pull + push) / (positives + negatives).clamp(min=1)
        pairs = len(xy_BP2) // 2
        return total, {"positive": pull_mean, "negative": push_mean, "positives_per_pair": positives / pairs}

    def _random_cells(self, xy_BP2: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """As many random cells (B, R, 2) as fill the image's negative pairs after those of its own points."""
        batch, points, _ = xy_BP2.shape
        left = self.config.stage1.negative_pairs - points * (points - 1) // 2
        count = max(1, left // max(points, 1))
        cells = torch.randint(0, side, (batch, count, 2), generator=generator, device=generator.device)
        return cells.to(xy_BP2)
