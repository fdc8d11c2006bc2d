"""Stage 1: the losses of detector and descriptors on pairs of views (thesis 6.1.4, 6.1.5; docs/method.md 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ray_kplm.config import Config
from ray_kplm.imaging import coordinates
from ray_kplm.methods.batch import Points
from ray_kplm.methods.landmark_objective import by_channel
from ray_kplm.network import distributed, heatmaps, losses
from ray_kplm.network.hourglass import DetectorNetwork, JointNetwork, KeypointNetwork
from ray_kplm.schemas import NONE


@dataclass(frozen=True)
class PairObjective:
    """The loss of detector and descriptors on pairs of views, whose points correspond by equal identity.

    Attributes:
        config: the run's.
        across: whether an identity has the same meaning in all images, as a cluster has. In the warm-up it is the index of a
            keypoint, which means nothing outside its pair.
        negatives: which points are negatives of each other, as in `stage1.negatives`.
    """

    config: Config
    across: bool
    negatives: Literal["same_image", "different_cluster"] = "same_image"

    def network(self) -> KeypointNetwork:
        """Return a network with random weights."""
        return KeypointNetwork(self.config.network)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return one group of all weights."""
        stage = self.config.stage1
        return [{"params": list(network.parameters()), "lr": stage.learning_rate, "weight_decay": stage.weight_decay}]

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts (scalars). Views 2i and 2i + 1 are a pair."""
        logits_Bhw, map_Bdhw = network(image_B3SS)
        return self._pair_loss(logits_Bhw, map_Bdhw, points, cells_BR)

    def random_cells(self, views: int, generator: torch.Generator) -> Tensor | None:
        """Draw cells of the heatmap for each view of this rank: int64 (B, R).

        Cells are drawn in a fixed number for each view of the batch of all ranks. So the cells of a view depend neither on the
        other views nor on the number of ranks.
        """
        cells = (self.config.network.image_size // coordinates.STRIDE) ** 2
        shape = (distributed.world_size() * views, max(self.config.stage1.negative_pairs, 1))
        drawn = torch.randint(0, cells, shape, generator=generator, device=generator.device)
        return distributed.own_rows(drawn)

    def _pair_loss(
        self, logits_Bhw: Tensor, map_Bdhw: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stage = self.config.stage1
        logits_Bhw, map_Bdhw = logits_Bhw.float(), map_Bdhw.float()
        target = heatmaps.render(points.xy, points.valid.float(), logits_Bhw.shape[-1], stage.heatmap_sigma).amax(1)
        # The total is 10 * descriptor + detector(view 1) + detector(view 2); the last two are twice the mean over both views.
        detector = 2 * losses.detector_loss(logits_Bhw.sigmoid(), target)
        descriptor, parts = self._descriptor_loss(map_Bdhw, points, cells_BR)
        loss = stage.descriptor_weight * descriptor + detector
        return loss, {"loss": loss, "detector": detector, "descriptor": descriptor, **parts}

    def _descriptor_loss(
        self, map_Bdhw: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stage = self.config.stage1
        descriptors_BPd = heatmaps.read_cells(map_Bdhw, points.xy)
        pull, own_positives = self._positives(descriptors_BPd, points.valid, points.identity)
        push, own_negatives = self._negatives(descriptors_BPd, map_Bdhw, points, cells_BR)
        positives, negatives = distributed.sum_over_ranks(torch.stack([own_positives, own_negatives])).unbind()
        pull_mean = distributed.share_of_mean(pull, positives)
        push_mean = distributed.share_of_mean(push, negatives)
        if stage.pair_weighting == "balanced":
            total = pull_mean + push_mean
        else:
            total = distributed.share_of_mean(pull + push, positives + negatives)
        pairs = distributed.world_size() * len(points.xy) // 2
        return total, {"positive": pull_mean, "negative": push_mean, "positives_per_pair": positives / pairs}

    def _positives(self, points_BPd: Tensor, valid_BP: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of squared distances of this rank's positive pairs, and their number."""
        stage = self.config.stage1
        if self.across and stage.correspondence == "equivariance":
            identity_BP = torch.where(valid_BP, torch.arange(valid_BP.shape[1], device=valid_BP.device), NONE)
        elif self.across and stage.positives == "batch":
            return losses.batch_positives(points_BPd, identity_BP)
        return losses.pair_positives(points_BPd[0::2], points_BPd[1::2], identity_BP[0::2], identity_BP[1::2])

    def _negatives(
        self, descriptors_BPd: Tensor, map_Bdhw: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of the hinge losses of this rank's negative pairs, and their number."""
        stage, side = self.config.stage1, map_Bdhw.shape[-1]
        if self.across and self.negatives == "different_cluster":
            return losses.different_cluster_negatives(descriptors_BPd, points.identity, margin=stage.margin)
        limits = {"margin": stage.margin, "minimum_distance": stage.negative_distance * side}
        own, own_pairs = losses.same_image_negatives(descriptors_BPd, points.xy, points.valid, **limits)
        assert cells_BR is not None
        point_BR, cell_BR, taken_BR = self._random_pairs(points.valid, cells_BR)
        background, background_pairs = losses.background_negatives(
            descriptors_BPd, points.xy, map_Bdhw, point_BR, cell_BR, taken_BR, **limits
        )
        return own + background, own_pairs + background_pairs

    def _random_pairs(self, valid_BP: Tensor, cells_BR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make pairs of a point and a random cell of its view, up to R per view.

        All n points of a view are paired with the same cells. Their number is the one that fills the view's negative pairs
        beside the n (n - 1) / 2 of its own points, and at least one.

        Returns:
            point: (B, R), index of the point in the view; cell: (B, R), index in the flattened heatmap; taken: bool (B, R),
            whether the view has the pair.
        """
        pairs = self.config.stage1.negative_pairs
        points_B1 = valid_BP.sum(1, keepdim=True)
        n_B1 = points_B1.clamp(min=1)
        cells_B1 = ((pairs - n_B1 * (n_B1 - 1) // 2) // n_B1).clamp(min=1)
        # Pair r consists of point r mod n and cell r div n.
        pair_R = torch.arange(max(pairs, valid_BP.shape[1]), device=valid_BP.device)
        point_BR = valid_BP.int().argsort(dim=1, descending=True, stable=True).gather(1, pair_R % n_B1)
        cell_BR = cells_BR.gather(1, (pair_R // n_B1).clamp(max=cells_BR.shape[1] - 1))
        return point_BR, cell_BR, pair_R < points_B1 * cells_B1


@dataclass(frozen=True)
class JointObjective(PairObjective):
    """The loss on pairs, with that of a third head of K landmark heatmaps: training in a single stage (thesis 7.2)."""

    def network(self) -> JointNetwork:
        """Return a network with random weights."""
        return JointNetwork(self.config.network, self.config.method.landmarks)

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts (scalars). Views 2i and 2i + 1 are a pair."""
        logits_Bhw, map_Bdhw, heatmaps_BKhw = network(image_B3SS)
        loss, parts = self._pair_loss(logits_Bhw, map_Bdhw, points, cells_BR)
        maps = heatmaps_BKhw.float()
        if points.landmark is None:
            # Without landmark labels, as in the warm-up. DDP needs a gradient for every weight, here zero.
            landmarks = 0 * maps.sum()
        else:
            xy_BK2, labelled_BK = by_channel(points.xy, points.landmark, maps.shape[1])
            target = heatmaps.render(xy_BK2, labelled_BK.float(), maps.shape[-1], self.config.stage2.heatmap_sigma)
            landmarks = losses.masked_mse(maps, target, labelled_BK)
        loss = loss + self.config.stage2.joint_weight * landmarks
        return loss, {**parts, "loss": loss, "landmarks": landmarks}


@dataclass(frozen=True)
class PointObjective:
    """The loss of the detector alone, on single views (thesis 4.2)."""

    config: Config

    def network(self) -> DetectorNetwork:
        """Return a network with random weights."""
        return DetectorNetwork(self.config.network)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return one group of all weights."""
        stage = self.config.stage1
        return [{"params": list(network.parameters()), "lr": stage.learning_rate, "weight_decay": stage.weight_decay}]

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts (scalars)."""
        logits_Bhw = network(image_B3SS).float()
        sigma = self.config.stage1.heatmap_sigma
        target = heatmaps.render(points.xy, points.valid.float(), logits_Bhw.shape[-1], sigma).amax(1)
        loss = losses.detector_loss(logits_Bhw.sigmoid(), target)
        return loss, {"loss": loss}

    def random_cells(self, views: int, generator: torch.Generator) -> Tensor | None:
        """Return None: nothing is drawn."""
        return None
