"""What a training step minimises, from padded point tensors, on the device.

Axes in names: B pairs (images, where there are no pairs), P points of an image (padded), Q = B P points of this rank, N those
of all ranks, R pairs of an image's points with random cells, d descriptor width, h = w heatmap side, c = h w cells, K
landmarks. Every loss of an empty set is zero (and has a zero gradient), never a NaN.

Terms over pairs are a sum and a number of pairs, of this rank; `network.distributed` makes means of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ray_kplm.network import distributed
from ray_kplm.schemas import NONE


def detector_loss(probability_Bhw: Tensor, target_Bhw: Tensor) -> Tensor:
    """Mean squared error of the detector's sigmoid heatmap (thesis 6.1.4); over as many cells on every rank."""
    return torch.nn.functional.mse_loss(probability_Bhw, target_Bhw)


def masked_mse(heatmaps_BKhw: Tensor, targets_BKhw: Tensor, labelled_BK: Tensor) -> Tensor:
    """This rank's share of the mean squared error over the channels that have a label in their image (thesis 6.1.7)."""
    per_channel = ((heatmaps_BKhw - targets_BKhw) ** 2).mean((2, 3))
    weight = labelled_BK.to(per_channel.dtype)
    return distributed.share_of_mean((per_channel * weight).sum(), distributed.sum_over_ranks(weight.sum()))


def pair_positives(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    identity_a: Tensor,
    identity_b: Tensor,
) -> tuple[Tensor, Tensor]:
    """Positives across the two images of a pair: the sum of their squared distances, and their number.

    Points correspond when their identities are equal and not NONE: (B, P) cluster, or index in the warm-up.
    """
    positive = (identity_a[:, :, None] == identity_b[:, None, :]) & (identity_a[:, :, None] != NONE)
    return (squared_distances(descriptors_a, descriptors_b) * positive).sum(), positive.sum()


def batch_positives(descriptors_BPd: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor]:
    """Positives across all images of the batch, other ranks' too: the sum of their squared distances, and their number.

    Points of two images correspond when their identities, which must mean the same in all images, are equal and not NONE.
    """
    squared_QN, identity_Q, identity_N = _to_whole_batch(descriptors_BPd, identity_BP)
    image_N = torch.arange(len(identity_N), device=identity_N.device) // identity_BP.shape[1]
    positive = (identity_Q[:, None] == identity_N) & (identity_Q != NONE)[:, None]
    positive &= distributed.own_rows(image_N)[:, None] != image_N
    return _once(squared_QN, positive)


def squared_distances(a_BPd: Tensor, b_BQd: Tensor) -> Tensor:
    """All squared Euclidean distances BPQ; clamped at zero, where rounding can lead below."""
    cross = a_BPd @ b_BQd.transpose(1, 2)
    square = (a_BPd**2).sum(-1)[:, :, None] + (b_BQd**2).sum(-1)[:, None, :]
    return (square - 2 * cross).clamp(min=0)


def hinge(squared: Tensor, margin: float) -> Tensor:
    """`max(0, margin - distance)^2` (released code; the thesis's Eqn 6.3 squares the distance inside instead)."""
    distance = (squared + 1e-8).sqrt()  # the root's gradient at zero is infinite
    return (margin - distance).clamp(min=0) ** 2


def own_negatives(
    descriptors_BPd: Tensor, xy_BP2: Tensor, valid_BP: Tensor, *, margin: float, minimum_distance: float
) -> tuple[Tensor, Tensor]:
    """Negatives among an image's own points (thesis 6.1.4): the sum of the hinge over all pairs of them, and their number.

    Pairs closer than `minimum_distance` cells are no negatives.
    """
    points = descriptors_BPd.shape[1]
    upper = torch.ones(points, points, dtype=torch.bool, device=xy_BP2.device).triu(1)
    apart = _apart(xy_BP2[:, :, None], xy_BP2[:, None, :], minimum_distance)
    own = upper & valid_BP[:, :, None] & valid_BP[:, None, :] & apart
    return (hinge(squared_distances(descriptors_BPd, descriptors_BPd), margin) * own).sum(), own.sum()


def background_negatives(
    descriptors_BPd: Tensor,
    xy_BP2: Tensor,
    map_Bdhw: Tensor,
    point_BR: Tensor,
    cell_BR: Tensor,
    taken_BR: Tensor,
    *,
    margin: float,
    minimum_distance: float,
) -> tuple[Tensor, Tensor]:
    """Negatives of an image's points with cells of its descriptor map (thesis 6.1.4): the sum of the hinge over the pairs that
    are taken, and their number.

    Pair r is of point `point_BR` and cell `cell_BR`, row by row. Pairs closer than `minimum_distance` cells are no negatives.
    """
    side, map_Bdc = map_Bdhw.shape[-1], map_Bdhw.flatten(2)
    cell_xy = torch.stack([cell_BR % side, cell_BR // side], dim=-1)
    point_xy = xy_BP2.gather(1, point_BR[..., None].expand(-1, -1, 2))
    taken_BR = taken_BR & _apart(point_xy, cell_xy, minimum_distance)
    # Products of all points with all cells, B P c, are cheap; the vectors of every pair, B R d, are not.
    cross_BR = (descriptors_BPd @ map_Bdc).flatten(1).gather(1, point_BR * side**2 + cell_BR)
    square_BR = (descriptors_BPd**2).sum(2).gather(1, point_BR) + (map_Bdc**2).sum(1).gather(1, cell_BR)
    return (hinge((square_BR - 2 * cross_BR).clamp(min=0), margin) * taken_BR).sum(), taken_BR.sum()


def different_cluster_negatives(
    descriptors_BPd: Tensor, identity_BP: Tensor, *, margin: float
) -> tuple[Tensor, Tensor]:
    """Negatives of chapter 5: all pairs of points of the batch, in one image or in two, on one rank or on two, whose clusters
    differ: the sum of the hinge over them, and their number. Points of NONE are in no pair.
    """
    squared_QN, identity_Q, identity_N = _to_whole_batch(descriptors_BPd, identity_BP)
    differ = (identity_Q[:, None] != identity_N) & (identity_Q != NONE)[:, None] & (identity_N != NONE)
    return _once(hinge(squared_QN, margin), differ)


def _to_whole_batch(descriptors_BPd: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances QN of this rank's points to all ranks' points, which are detached, and the identities Q and N."""
    own_Qd, identity_Q = descriptors_BPd.flatten(0, 1), identity_BP.flatten()
    squared_QN = squared_distances(own_Qd[None], distributed.gather_rows(own_Qd)[None])[0]
    return squared_QN, identity_Q, distributed.gather_rows(identity_Q)


def _once(terms_QN: Tensor, chosen_QN: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number of pairs of the batch, where every chosen pair stands twice: once at either end, on one rank or on two.

    Only the end at hand has a gradient, so that of the sum is right already; its value and the number are halved.
    """
    twice = (terms_QN * chosen_QN).sum()
    return twice - twice.detach() / 2, chosen_QN.sum() / 2


def _apart(a: Tensor, b: Tensor, minimum: float) -> Tensor:
    """Whether points (..., 2) are at least so far from one another: bool (...)."""
    return (a - b).pow(2).sum(-1) >= minimum**2
