"""Stage 1: what a training step on pairs minimises (thesis 6.1.4, 6.1.5; METHOD 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ray_kplm.config import Config
from ray_kplm.contracts import NONE
from ray_kplm.methods.stage2 import by_channel
from ray_kplm.methods.views import Points
from ray_kplm.network import heatmaps, losses
from ray_kplm.network.hourglass import DetectorNetwork, JointNetwork, KeypointNetwork


@dataclass(frozen=True)
class PairObjective:
    """Detector and descriptors from pairs of views, whose points correspond by equal identity.

    Picklable and free of weights. across: whether an identity means the same in every image, as a cluster does; in the warm-up
    it is a keypoint's index and means nothing outside its pair. negatives: as in `stage1.negatives`.
    """

    config: Config
    across: bool
    negatives: Literal["same_image", "different_cluster"] = "same_image"

    def network(self) -> KeypointNetwork:
        return KeypointNetwork(self.config.network)

    def parameter_groups(self, network: nn.Module) -> list[dict]:
        stage = self.config.stage1
        return [{"params": list(network.parameters()), "lr": stage.learning_rate, "weight_decay": stage.weight_decay}]

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Views 2i and 2i + 1 are a pair. Returns the loss and its parts (scalars)."""
        logits_Bhw, map_Bdhw = network(image_B3SS)
        return self._pair_loss(logits_Bhw, map_Bdhw, points, generator)

    def _pair_loss(
        self, logits_Bhw: Tensor, map_Bdhw: Tensor, points: Points, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stage = self.config.stage1
        logits_Bhw, map_Bdhw = logits_Bhw.float(), map_Bdhw.float()
        target = heatmaps.render(points.xy, points.valid.float(), logits_Bhw.shape[-1], stage.heatmap_sigma).amax(1)
        # Total = 10 * descriptor + detector(image 1) + detector(image 2): twice the mean over both.
        detector = 2 * losses.detector_loss(logits_Bhw.sigmoid(), target)
        descriptor, parts = self._descriptor_loss(map_Bdhw, points.xy, points.valid, points.identity, generator)
        loss = stage.descriptor_weight * descriptor + detector
        return loss, {"loss": loss, "detector": detector, "descriptor": descriptor, **parts}

    def _descriptor_loss(
        self, map_Bdhw: Tensor, xy_BP2: Tensor, valid_BP: Tensor, identity_BP: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stage = self.config.stage1
        points = heatmaps.read_cells(map_Bdhw, xy_BP2)
        squared, positive = self._positives(points, valid_BP, identity_BP)
        pull, positives = (squared * positive).sum(), positive.sum()
        push, negatives = self._negatives(points, map_Bdhw, xy_BP2, valid_BP, identity_BP, generator)
        pull_mean, push_mean = pull / positives.clamp(min=1), push / negatives.clamp(min=1)
        if stage.pair_weighting == "balanced":
            total = pull_mean + push_mean
        else:
            total = (pull + push) / (positives + negatives).clamp(min=1)
        pairs = len(xy_BP2) // 2
        return total, {"positive": pull_mean, "negative": push_mean, "positives_per_pair": positives / pairs}

    def _positives(self, points_BPd: Tensor, valid_BP: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances, and which of them are of corresponding points."""
        stage = self.config.stage1
        if self.across and stage.correspondence == "equivariance":
            identity_BP = torch.where(valid_BP, torch.arange(valid_BP.shape[1], device=valid_BP.device), NONE)
        elif self.across and stage.positives == "batch":
            return losses.batch_terms(points_BPd, identity_BP)
        return losses.pair_terms(points_BPd[0::2], points_BPd[1::2], identity_BP[0::2], identity_BP[1::2])

    def _negatives(
        self,
        points_BPd: Tensor,
        map_Bdhw: Tensor,
        xy_BP2: Tensor,
        valid_BP: Tensor,
        identity_BP: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Sum of the hinge and number of negative pairs."""
        stage, side = self.config.stage1, map_Bdhw.shape[-1]
        if self.across and self.negatives == "different_cluster":
            return losses.different_cluster_negatives(points_BPd, identity_BP, margin=stage.margin)
        random_xy = self._random_cells(xy_BP2, side, generator)
        push_B, negatives_B = losses.same_image_negatives(
            points_BPd,
            xy_BP2,
            valid_BP,
            heatmaps.read_cells(map_Bdhw, random_xy),
            random_xy,
            margin=stage.margin,
            minimum_distance=stage.negative_distance * side,
        )
        return push_B.sum(), negatives_B.sum()

    def _random_cells(self, xy_BP2: Tensor, side: int, generator: torch.Generator) -> Tensor:
        """As many random cells (B, R, 2) as fill the image's negative pairs after those of its own points."""
        batch, points, _ = xy_BP2.shape
        left = self.config.stage1.negative_pairs - points * (points - 1) // 2
        count = max(1, left // max(points, 1))
        cells = torch.randint(0, side, (batch, count, 2), generator=generator, device=generator.device)
        return cells.to(xy_BP2)


@dataclass(frozen=True)
class JointObjective(PairObjective):
    """Pairs, and a head of K landmarks beside them, which learns where labels tell landmarks: a single stage (thesis 7.2)."""

    def network(self) -> JointNetwork:
        return JointNetwork(self.config.network, self.config.method.landmarks)

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Views 2i and 2i + 1 are a pair. Returns the loss and its parts (scalars)."""
        logits_Bhw, map_Bdhw, heatmaps_BKhw = network(image_B3SS)
        loss, parts = self._pair_loss(logits_Bhw, map_Bdhw, points, generator)
        maps = heatmaps_BKhw.float()
        if points.landmark is None:
            landmarks = 0 * maps.sum()  # the head waits, but every worker must see a gradient of all weights
        else:
            xy_BK2, labelled_BK = by_channel(points.xy, points.landmark, maps.shape[1])
            target = heatmaps.render(xy_BK2, labelled_BK.float(), maps.shape[-1], self.config.stage2.heatmap_sigma)
            landmarks = losses.masked_mse(maps, target, labelled_BK)
        loss = loss + self.config.stage2.joint_weight * landmarks
        return loss, {**parts, "loss": loss, "landmarks": landmarks}


@dataclass(frozen=True)
class PointObjective:
    """The detector alone, on single views: chapter 4."""

    config: Config

    def network(self) -> DetectorNetwork:
        return DetectorNetwork(self.config.network)

    def parameter_groups(self, network: nn.Module) -> list[dict]:
        stage = self.config.stage1
        return [{"params": list(network.parameters()), "lr": stage.learning_rate, "weight_decay": stage.weight_decay}]

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its parts (scalars)."""
        logits_Bhw = network(image_B3SS).float()
        sigma = self.config.stage1.heatmap_sigma
        target = heatmaps.render(points.xy, points.valid.float(), logits_Bhw.shape[-1], sigma).amax(1)
        loss = losses.detector_loss(logits_Bhw.sigmoid(), target)
        return loss, {"loss": loss}
