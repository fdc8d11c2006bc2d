"""From a frozen stage-1 network to keypoints, with descriptors where it has them (docs/method.md 3 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from ray_kplm.config import DetectionConfig
from ray_kplm.imaging import coordinates
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement


@dataclass(frozen=True)
class Detected:
    """Keypoints of one image, strongest first.

    xy float32 (N, 2), score float32 (N,), descriptors and descriptors_flipped float16 (N, d), unit norm.
    """

    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    descriptors: NDArray[np.float16]
    descriptors_flipped: NDArray[np.float16]

    def in_crop(self, input_to_crop: coordinates.Affine) -> Detected:
        return replace(self, xy=coordinates.apply(input_to_crop, self.xy).astype(np.float32))


class KeypointExtractor(Protocol):
    """A frozen network that finds keypoints in images uint8 (B, S, S, 3)."""

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Heights of all local maxima, in no order."""
        ...

    def find(
        self, images: NDArray[np.uint8], threshold: float, known: list[NDArray[np.float32]] | None = None
    ) -> list[Detected]:
        """What is above the threshold, and the known points of each image, in the input frame."""
        ...


class DescriptorExtractor:
    """Keypoints with descriptors, plain and of the mirror image."""

    def __init__(self, network: nn.Module, placement: Placement, options: DetectionConfig) -> None:
        self._network, self._placement, self._options = network, placement, options

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return peak_scores(self._network, self._placement, images, self._options.nms_radius, self._options.limit)

    def find(
        self, images: NDArray[np.uint8], threshold: float, known: list[NDArray[np.float32]] | None = None
    ) -> list[Detected]:
        radius, limit = self._options.nms_radius, self._options.limit
        return detect_keypoints(self._network, self._placement, images, threshold, radius, limit, known)


DISTILLING_VIEWS = ((0.0, 1.0, False), (0.0, 1.0, True), (15.0, 1.0, False), (-15.0, 1.0, False), (0.0, 0.85, False),
                    (0.0, 1.15, False))  # fmt: skip
"""Rotation (degrees), zoom and mirroring of the views whose heatmaps are averaged (thesis 4.2.3: crops, rotations, flip)."""


class PointExtractor:
    """Keypoints without descriptors, in the mean heatmap of one or several views."""

    def __init__(
        self, network: nn.Module, placement: Placement, options: DetectionConfig, views: tuple = DISTILLING_VIEWS[:1]
    ) -> None:
        self._network, self._placement, self._options, self._views = network, placement, options, views

    @torch.inference_mode()
    def heat(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Mean heatmap Bhw of the views, each turned back."""
        batch = self._placement.images(images)
        total = torch.zeros(())
        for degrees, zoom, mirrored in self._views:
            there, back = _view_and_back(degrees, zoom, mirrored)
            with self._placement.precision():
                heat = self._network(_seen(batch, there)).float().sigmoid()
            total = total.to(heat) + _seen(heat[:, None], back)[:, 0]
        return total / len(self._views)

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = heatmaps.peaks(self.heat(images), 0.0, self._options.nms_radius, self._options.limit)
        return found.score_BN[found.valid_BN].cpu().numpy()

    def find(
        self, images: NDArray[np.uint8], threshold: float, known: list[NDArray[np.float32]] | None = None
    ) -> list[Detected]:
        heat = self.heat(images)
        found = heatmaps.peaks(heat, threshold, self._options.nms_radius, self._options.limit)
        if known is not None:
            found = _with_known(found, heat, known, self._options.nms_radius)
        xy = coordinates.heatmap_to_input(found.xy_BN2.cpu().numpy()).astype(np.float32)
        score, valid = found.score_BN.cpu().numpy(), found.valid_BN.cpu().numpy()
        nothing = np.zeros((len(heat), xy.shape[1], 0), np.float16)
        return [Detected(xy[b][v], score[b][v], nothing[b][v], nothing[b][v]) for b, v in enumerate(valid)]


def _view_and_back(degrees: float, zoom: float, mirrored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a view's pixels come from, in coordinates from -1 to 1 over the picture, and the way back: (2, 3) each."""
    angle = np.radians(degrees)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    linear = linear @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    both = (np.concatenate([m, np.zeros((2, 1))], axis=1) for m in (linear, np.linalg.inv(linear)))
    there, back = (torch.from_numpy(m.astype(np.float32)) for m in both)
    return there, back


def _seen(maps_BChw: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Maps as a view shows them."""
    if torch.equal(source, torch.eye(2, 3)):
        return maps_BChw
    grid = F.affine_grid(source.expand(len(maps_BChw), 2, 3), list(maps_BChw.shape), align_corners=False)
    return F.grid_sample(maps_BChw, grid.to(maps_BChw), padding_mode="border", align_corners=False)


@torch.inference_mode()
def peak_scores(
    network: nn.Module, placement: Placement, images: NDArray[np.uint8], radius: int, limit: int
) -> NDArray[np.float32]:
    """Heights of all local maxima of the detector on uint8 (B, S, S, 3), in no order."""
    with placement.precision():
        logits_Bhw, _ = network(placement.images(images))
    found = heatmaps.peaks(logits_Bhw.float().sigmoid(), 0.0, radius, limit)
    return found.score_BN[found.valid_BN].cpu().numpy()


def calibrated_threshold(scores: NDArray[np.float32], images: int, points_per_image: float) -> float:
    """The threshold above which the sample of `images` images has `points_per_image` points on average.

    scores: of all local maxima in the sample. If there are fewer, all are taken.
    """
    wanted = round(images * points_per_image)
    if wanted >= len(scores):
        return 0.0
    return float(np.partition(scores, -wanted - 1)[-wanted - 1])


@torch.inference_mode()
def detect_keypoints(
    network: nn.Module,
    placement: Placement,
    images: NDArray[np.uint8],
    threshold: float,
    radius: int,
    limit: int,
    known: list[NDArray[np.float32]] | None = None,
) -> list[Detected]:
    """Keypoints of each of uint8 (B, S, S, 3), in the input frame.

    The flipped descriptor is read at the keypoint's mirrored place in the network's output for the mirrored image. known: for
    each image points (N, 2) that are keypoints too, where no new one is within `radius` cells (thesis 5.2.1).
    """
    batch = placement.images(images)
    with placement.precision():
        logits_Bhw, map_Bdhw = network(batch)
        _, mirrored_Bdhw = network(batch.flip(-1))
    side = logits_Bhw.shape[-1]
    heat_Bhw = logits_Bhw.float().sigmoid()
    found = heatmaps.peaks(heat_Bhw, threshold, radius, limit)
    if known is not None:
        found = _with_known(found, heat_Bhw, known, radius)
    mirrored_xy = found.xy_BN2.clone()
    mirrored_xy[..., 0] = side - 1 - mirrored_xy[..., 0]
    plain = F.normalize(heatmaps.sample(map_Bdhw.float(), found.xy_BN2), dim=-1).half().cpu().numpy()
    flipped = F.normalize(heatmaps.sample(mirrored_Bdhw.float(), mirrored_xy), dim=-1).half().cpu().numpy()
    xy = coordinates.heatmap_to_input(found.xy_BN2.cpu().numpy()).astype(np.float32)
    score, valid = found.score_BN.cpu().numpy(), found.valid_BN.cpu().numpy()
    return [Detected(xy[b][v], score[b][v], plain[b][v], flipped[b][v]) for b, v in enumerate(valid)]


def _with_known(found: heatmaps.Peaks, heat_Bhw: torch.Tensor, known: list[NDArray], radius: int) -> heatmaps.Peaks:
    """Peaks and, behind them, the known points (input frame) that are not near one; their score is the heatmap's there."""
    most = max((len(xy) for xy in known), default=0)
    xy_BE2, valid_BE = heat_Bhw.new_zeros(len(known), most, 2), torch.zeros(len(known), most, dtype=torch.bool)
    for b, xy in enumerate(known):
        xy_BE2[b, : len(xy)] = torch.from_numpy(coordinates.input_to_heatmap(np.asarray(xy, np.float32))).to(heat_Bhw)
        valid_BE[b, : len(xy)] = True
    valid_BE = valid_BE.to(heat_Bhw.device)
    apart_BEN = (xy_BE2[:, :, None] - found.xy_BN2[:, None]).abs().amax(-1) > radius
    valid_BE &= (apart_BEN | ~found.valid_BN[:, None]).all(-1)
    score_BE = heatmaps.sample(heat_Bhw[:, None], xy_BE2)[..., 0]
    return heatmaps.Peaks(
        torch.cat([found.xy_BN2, xy_BE2], 1),
        torch.cat([found.score_BN, score_BE], 1),
        torch.cat([found.valid_BN, valid_BE], 1),
    )
