"""Stage 1: what a training step on pairs minimises (thesis 6.1.4, 6.1.5; docs/method.md 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ray_kplm.config import Config
from ray_kplm.methods.batch import Points
from ray_kplm.methods.landmark_objective import by_channel
from ray_kplm.network import distributed, heatmaps, losses
from ray_kplm.network.hourglass import DetectorNetwork, JointNetwork, KeypointNetwork
from ray_kplm.schemas import NONE


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
        pull, own_positives = self._positives(points, valid_BP, identity_BP)
        push, own_negatives = self._negatives(points, map_Bdhw, xy_BP2, valid_BP, identity_BP, generator)
        positives, negatives = distributed.sum_over_ranks(torch.stack([own_positives, own_negatives])).unbind()
        pull_mean = distributed.share_of_mean(pull, positives)
        push_mean = distributed.share_of_mean(push, negatives)
        if stage.pair_weighting == "balanced":
            total = pull_mean + push_mean
        else:
            total = distributed.share_of_mean(pull + push, positives + negatives)
        pairs = distributed.world_size() * len(xy_BP2) // 2
        return total, {"positive": pull_mean, "negative": push_mean, "positives_per_pair": positives / pairs}

    def _positives(self, points_BPd: Tensor, valid_BP: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the squared distances and number of positive pairs, of this rank."""
        stage = self.config.stage1
        if self.across and stage.correspondence == "equivariance":
            identity_BP = torch.where(valid_BP, torch.arange(valid_BP.shape[1], device=valid_BP.device), NONE)
        elif self.across and stage.positives == "batch":
            return losses.batch_positives(points_BPd, identity_BP)
        return losses.pair_positives(points_BPd[0::2], points_BPd[1::2], identity_BP[0::2], identity_BP[1::2])

    def _negatives(
        self,
        points_BPd: Tensor,
        map_Bdhw: Tensor,
        xy_BP2: Tensor,
        valid_BP: Tensor,
        identity_BP: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Sum of the hinge and number of negative pairs, of this rank."""
        stage, side = self.config.stage1, map_Bdhw.shape[-1]
        if self.across and self.negatives == "different_cluster":
            return losses.different_cluster_negatives(points_BPd, identity_BP, margin=stage.margin)
        limits = {"margin": stage.margin, "minimum_distance": stage.negative_distance * side}
        own, own_pairs = losses.same_image_negatives(points_BPd, xy_BP2, valid_BP, **limits)
        point_BR, cell_BR, taken_BR = self._random_pairs(valid_BP, side, generator)
        background, background_pairs = losses.background_negatives(
            points_BPd, xy_BP2, map_Bdhw, point_BR, cell_BR, taken_BR, **limits
        )
        return own + background, own_pairs + background_pairs

    def _random_pairs(self, valid_BP: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Points and random cells of R pairs, (B, R) each, and which of the pairs an image has, bool (B, R): each of its n
        points with the same cells, as many as fill its negative pairs after those of its own points, and at least one.

        The draw is of a fixed size, for the batch of all ranks: an image's cells are the first of its row there, whatever the
        other images hold and however many ranks there are.
        """
        pairs = self.config.stage1.negative_pairs
        shape = (distributed.world_size() * len(valid_BP), max(pairs, 1))
        drawn = torch.randint(0, side * side, shape, generator=generator, device=generator.device)
        points_B1 = valid_BP.sum(1, keepdim=True)
        n_B1 = points_B1.clamp(min=1)
        cells_B1 = ((pairs - n_B1 * (n_B1 - 1) // 2) // n_B1).clamp(min=1)
        # Pair r is of the image's point r mod n and its cell r div n, until it has as many as it may.
        pair_R = torch.arange(max(pairs, valid_BP.shape[1]), device=valid_BP.device)
        point_BR = valid_BP.int().argsort(dim=1, descending=True, stable=True).gather(1, pair_R % n_B1)
        cell_BR = distributed.own_rows(drawn).to(valid_BP.device).gather(1, (pair_R // n_B1).clamp(max=shape[1] - 1))
        return point_BR, cell_BR, pair_R < points_B1 * cells_B1


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
