"""What a training step minimises, from padded point tensors, on the device.

Axes in names: B pairs, P points of an image (padded), R random cells, d descriptor width, h = w heatmap side, K landmarks.
Every loss of an empty set is zero (and has a zero gradient), never a NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ray_kplm.contracts import NONE


def detector_loss(probability_Bhw: Tensor, target_Bhw: Tensor) -> Tensor:
    """Mean squared error of the detector's sigmoid heatmap (METHOD 3)."""
    return torch.nn.functional.mse_loss(probability_Bhw, target_Bhw)


def masked_mse(heatmaps_BKhw: Tensor, targets_BKhw: Tensor, labelled_BK: Tensor) -> Tensor:
    """Mean squared error over the channels that have a label in their image (METHOD 4)."""
    per_channel = ((heatmaps_BKhw - targets_BKhw) ** 2).mean((2, 3))
    weight = labelled_BK.to(per_channel.dtype)
    return (per_channel * weight).sum() / weight.sum().clamp(min=1)


def pair_terms(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    identity_a: Tensor,
    identity_b: Tensor,
) -> tuple[Tensor, Tensor]:
    """Positives across the two images of a pair: squared distance BPP and which entries are positive, bool BPP.

    Points correspond when their identities are equal and not NONE: (B, P) cluster, or index in the warm-up.
    """
    positive = (identity_a[:, :, None] == identity_b[:, None, :]) & (identity_a[:, :, None] != NONE)
    return squared_distances(descriptors_a, descriptors_b), positive


def batch_terms(descriptors_BPd: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor]:
    """Positives across all images of a batch: squared distance QQ of the Q = B P points and which entries are positive.

    Every pair of different images counts once; identities must mean the same in all of them.
    """
    batch, points = identity_BP.shape
    flat = descriptors_BPd.flatten(0, 1)
    image = torch.arange(batch, device=flat.device).repeat_interleave(points)
    identity = identity_BP.flatten()
    positive = (identity[:, None] == identity[None]) & (identity != NONE)[:, None] & (image[:, None] < image[None])
    return squared_distances(flat[None], flat[None])[0], positive


def squared_distances(a_BPd: Tensor, b_BQd: Tensor) -> Tensor:
    """All squared Euclidean distances BPQ; clamped at zero, where rounding can lead below."""
    cross = a_BPd @ b_BQd.transpose(1, 2)
    square = (a_BPd**2).sum(-1)[:, :, None] + (b_BQd**2).sum(-1)[:, None, :]
    return (square - 2 * cross).clamp(min=0)


def hinge(squared: Tensor, margin: float) -> Tensor:
    """`max(0, margin - distance)^2` (released code; the thesis's Eqn 6.3 squares the distance inside instead)."""
    distance = (squared + 1e-8).sqrt()  # the root's gradient at zero is infinite
    return (margin - distance).clamp(min=0) ** 2


def same_image_negatives(
    descriptors_BPd: Tensor,
    xy_BP2: Tensor,
    valid_BP: Tensor,
    random_BRd: Tensor,
    random_xy_BR2: Tensor,
    *,
    margin: float,
    minimum_distance: float,
) -> tuple[Tensor, Tensor]:
    """Negatives within an image (thesis 6.1.4): all pairs of its own points, and (own point, random cell).

    Pairs closer than `minimum_distance` cells are no negatives. Returns the sum of the hinge over the pairs of each
    image, B, and the number of those pairs, B.
    """
    points = descriptors_BPd.shape[1]
    upper = torch.ones(points, points, dtype=torch.bool, device=xy_BP2.device).triu(1)
    own = upper & valid_BP[:, :, None] & valid_BP[:, None, :] & _apart(xy_BP2, xy_BP2, minimum_distance)
    background = valid_BP[:, :, None] & _apart(xy_BP2, random_xy_BR2, minimum_distance)
    loss = (hinge(squared_distances(descriptors_BPd, descriptors_BPd), margin) * own).sum((1, 2))
    loss = loss + (hinge(squared_distances(descriptors_BPd, random_BRd), margin) * background).sum((1, 2))
    return loss, own.sum((1, 2)) + background.sum((1, 2))


def different_cluster_negatives(
    descriptors_BPd: Tensor, identity_BP: Tensor, *, margin: float
) -> tuple[Tensor, Tensor]:
    """Negatives of chapter 5: all pairs of points of a batch, in one image or in two, whose clusters differ.

    Points of NONE are in no pair. Returns the sum of the hinge and the number of pairs.
    """
    flat, identity = descriptors_BPd.flatten(0, 1), identity_BP.flatten()
    known = identity != NONE
    differ = (identity[:, None] != identity[None]) & known[:, None] & known[None]
    once = differ.triu(1)
    return (hinge(squared_distances(flat[None], flat[None])[0], margin) * once).sum(), once.sum()


def _apart(a_BP2: Tensor, b_BQ2: Tensor, minimum: float) -> Tensor:
    return (a_BP2[:, :, None] - b_BQ2[:, None, :]).pow(2).sum(-1) >= minimum**2
