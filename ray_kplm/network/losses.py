"""Losses of a training step, from padded point tensors, on the device.

Axes in names: B pairs of images (or images, where there are no pairs), P points of an image (padded), Q = B P points of this
rank, N points of all ranks, R pairs of an image's points with random cells, d descriptor width, h = w heatmap side, c = h w
cells, K landmarks. The loss of an empty set is zero with a zero gradient, never NaN.

Losses over pairs of points are returned as this rank's sum and number of pairs; `network.distributed` turns them into means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ray_kplm.network import distributed
from ray_kplm.schemas import NONE


def detector_loss(probability_Bhw: Tensor, target_Bhw: Tensor) -> Tensor:
    """Return the mean squared error of the detector's sigmoid heatmap (thesis 6.1.4); all ranks have equally many cells."""
    return torch.nn.functional.mse_loss(probability_Bhw, target_Bhw)


def masked_mse(heatmaps_BKhw: Tensor, targets_BKhw: Tensor, labelled_BK: Tensor) -> Tensor:
    """Return this rank's share of the mean squared error over the channels that have a label in their image (thesis 6.1.7).

    Args:
        heatmaps_BKhw: The network's output.
        targets_BKhw: The rendered labels.
        labelled_BK: Which channels have a label.
    """
    per_channel = ((heatmaps_BKhw - targets_BKhw) ** 2).mean((2, 3))
    weight = labelled_BK.to(per_channel.dtype)
    return distributed.share_of_mean((per_channel * weight).sum(), distributed.sum_over_ranks(weight.sum()))


def pair_positives(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    identity_a: Tensor,
    identity_b: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the sum of squared distances of positives across the two images of a pair, and their number.

    Args:
        descriptors_a: BPd, of the points of the first image.
        descriptors_b: BPd, of the points of the second image.
        identity_a: BP, cluster of each point of the first image, or its index in the warm-up. Points correspond when their
            identities are equal and not NONE.
        identity_b: BP, the same for the second image.
    """
    positive = (identity_a[:, :, None] == identity_b[:, None, :]) & (identity_a[:, :, None] != NONE)
    return (squared_distances(descriptors_a, descriptors_b) * positive).sum(), positive.sum()


def batch_positives(descriptors_BPd: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of squared distances of positives across all images of the batch on all ranks, and their number.

    Args:
        descriptors_BPd: Of this rank's points.
        identity_BP: Cluster of each point, with the same meaning in all images. Points of two images correspond when their
            identities are equal and not NONE.
    """
    squared_QN, identity_Q, identity_N = _to_whole_batch(descriptors_BPd, identity_BP)
    image_N = torch.arange(len(identity_N), device=identity_N.device) // identity_BP.shape[1]
    positive = (identity_Q[:, None] == identity_N) & (identity_Q != NONE)[:, None]
    positive &= distributed.own_rows(image_N)[:, None] != image_N
    return _count_pairs_once(squared_QN, positive)


def squared_distances(a_BPd: Tensor, b_BQd: Tensor) -> Tensor:
    """Return all squared Euclidean distances, BPQ, clamped at zero against negative rounding errors."""
    cross = a_BPd @ b_BQd.transpose(1, 2)
    square = (a_BPd**2).sum(-1)[:, :, None] + (b_BQd**2).sum(-1)[:, None, :]
    return (square - 2 * cross).clamp(min=0)


def hinge(squared: Tensor, margin: float) -> Tensor:
    """Return `max(0, margin - distance)^2` (released code; the thesis's Eqn 6.3 squares the distance inside instead)."""
    distance = (squared + 1e-8).sqrt()  # the root's gradient at zero is infinite
    return (margin - distance).clamp(min=0) ** 2


def same_image_negatives(
    descriptors_BPd: Tensor, xy_BP2: Tensor, valid_BP: Tensor, *, margin: float, minimum_distance: float
) -> tuple[Tensor, Tensor]:
    """Return the sum of the hinge over pairs of points of one image (thesis 6.1.4), and their number.

    Args:
        descriptors_BPd: Of the points.
        xy_BP2: The points, heatmap cells.
        valid_BP: False for padding.
        margin: Of the hinge.
        minimum_distance: Pairs closer than this, cells, are no negatives.
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
    """Return the sum of the hinge over pairs of a point and a cell of its image (thesis 6.1.4), and their number.

    Args:
        descriptors_BPd: Of the points.
        xy_BP2: The points, heatmap cells.
        map_Bdhw: Descriptor maps of the images.
        point_BR: The point of each pair.
        cell_BR: The cell of each pair, counted row by row.
        taken_BR: Which pairs count.
        margin: Of the hinge.
        minimum_distance: Pairs closer than this, cells, are no negatives.
    """
    side, map_Bdc = map_Bdhw.shape[-1], map_Bdhw.flatten(2)
    cell_xy = torch.stack([cell_BR % side, cell_BR // side], dim=-1)
    point_xy = xy_BP2.gather(1, point_BR[..., None].expand(-1, -1, 2))
    taken_BR = taken_BR & _apart(point_xy, cell_xy, minimum_distance)
    # The products of all points with all cells, B P c, need less memory than the descriptors of all pairs, B R d.
    cross_BR = (descriptors_BPd @ map_Bdc).flatten(1).gather(1, point_BR * side**2 + cell_BR)
    square_BR = (descriptors_BPd**2).sum(2).gather(1, point_BR) + (map_Bdc**2).sum(1).gather(1, cell_BR)
    return (hinge((square_BR - 2 * cross_BR).clamp(min=0), margin) * taken_BR).sum(), taken_BR.sum()


def different_cluster_negatives(
    descriptors_BPd: Tensor, identity_BP: Tensor, *, margin: float
) -> tuple[Tensor, Tensor]:
    """Return the sum of the hinge over all pairs of points of different clusters in the batch (chapter 5), and their number.

    A pair's points may be in one image or in two, on one rank or on two.

    Args:
        descriptors_BPd: Of this rank's points.
        identity_BP: Cluster of each point. Points with NONE are in no pair.
        margin: Of the hinge.
    """
    squared_QN, identity_Q, identity_N = _to_whole_batch(descriptors_BPd, identity_BP)
    differ = (identity_Q[:, None] != identity_N) & (identity_Q != NONE)[:, None] & (identity_N != NONE)
    return _count_pairs_once(hinge(squared_QN, margin), differ)


def _to_whole_batch(descriptors_BPd: Tensor, identity_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squared distances QN of this rank's points to all ranks' (detached) points, and the identities Q and N."""
    own_Qd, identity_Q = descriptors_BPd.flatten(0, 1), identity_BP.flatten()
    squared_QN = squared_distances(own_Qd[None], distributed.gather_rows(own_Qd)[None])[0]
    return squared_QN, identity_Q, distributed.gather_rows(identity_Q)


def _count_pairs_once(terms_QN: Tensor, chosen_QN: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and number of the chosen pairs of the batch, each of which occurs twice: once for each of its points.

    Only the point of this rank (Q) has a gradient, so the gradient of the sum is right already. Its value and the number are
    halved.
    """
    twice = (terms_QN * chosen_QN).sum()
    return twice - twice.detach() / 2, chosen_QN.sum() / 2


def _apart(a: Tensor, b: Tensor, minimum: float) -> Tensor:
    """Return whether points (..., 2) are at least `minimum` from each other: bool (...)."""
    return (a - b).pow(2).sum(-1) >= minimum**2
