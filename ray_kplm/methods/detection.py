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
    network: nn.Module, placement: Placement, images: NDArray[np.uint8], threshold: float, radius: int, limit: int
) -> list[Detected]:
    """Keypoints of each of uint8 (B, S, S, 3), in the input frame.

    The flipped descriptor is read at the keypoint's mirrored place in the network's output for the mirrored image.
    """
    batch = placement.images(images)
    with placement.precision():
        logits_Bhw, map_Bdhw = network(batch)
        _, mirrored_Bdhw = network(batch.flip(-1))
    side = logits_Bhw.shape[-1]
    found = heatmaps.peaks(logits_Bhw.float().sigmoid(), threshold, radius, limit)
    mirrored_xy = found.xy_BN2.clone()
    mirrored_xy[..., 0] = side - 1 - mirrored_xy[..., 0]
    plain = F.normalize(heatmaps.sample(map_Bdhw.float(), found.xy_BN2), dim=-1).half().cpu().numpy()
    flipped = F.normalize(heatmaps.sample(mirrored_Bdhw.float(), mirrored_xy), dim=-1).half().cpu().numpy()
    xy = frames.heatmap_to_input(found.xy_BN2.cpu().numpy()).astype(np.float32)
    score, valid = found.score_BN.cpu().numpy(), found.valid_BN.cpu().numpy()
    return [Detected(xy[b][v], score[b][v], plain[b][v], flipped[b][v]) for b, v in enumerate(valid)]
