"""From the stage-1 network to keypoints with descriptors (METHOD 3, step 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from ray_kplm.imaging import frames
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

    def in_crop(self, input_to_crop: frames.Affine) -> Detected:
        return replace(self, xy=frames.apply(input_to_crop, self.xy).astype(np.float32))


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
    xy = frames.heatmap_to_input(found.xy_BN2.cpu().numpy()).astype(np.float32)
    score, valid = found.score_BN.cpu().numpy(), found.valid_BN.cpu().numpy()
    return [Detected(xy[b][v], score[b][v], plain[b][v], flipped[b][v]) for b, v in enumerate(valid)]


def _with_known(found: heatmaps.Peaks, heat_Bhw: torch.Tensor, known: list[NDArray], radius: int) -> heatmaps.Peaks:
    """Peaks and, behind them, the known points (input frame) that are not near one; their score is the heatmap's there."""
    most = max((len(xy) for xy in known), default=0)
    xy_BE2, valid_BE = heat_Bhw.new_zeros(len(known), most, 2), torch.zeros(len(known), most, dtype=torch.bool)
    for b, xy in enumerate(known):
        xy_BE2[b, : len(xy)] = torch.from_numpy(frames.input_to_heatmap(np.asarray(xy, np.float32))).to(heat_Bhw)
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
