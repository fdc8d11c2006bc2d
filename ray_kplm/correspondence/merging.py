"""Merging of landmark channels that follow the same point (thesis 5.2.2, docs/method.md 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.reduction import Reducible


@dataclass(frozen=True)
class CoActivation(Reducible):
    """Counts of how often each of C channels fires, and how often two channels fire at one place.

    Attributes:
        images: Number of images.
        fires: int64 (C,), images in which a channel fires.
        together: int64 (C, C), images in which two channels fire close to each other.
    """

    images: int
    fires: NDArray[np.int64]
    together: NDArray[np.int64]

    def overlap(self) -> NDArray[np.float64]:
        """Return the images in which two channels fire at one place, as a share of those of the rarer channel: (C, C)."""
        rarer = np.minimum(self.fires[:, None], self.fires[None, :])
        overlap: NDArray[np.float64] = self.together / np.maximum(rarer, 1)
        return overlap


def co_activation(xy: NDArray[Any], confidence: NDArray[Any], *, least: float, distance: float) -> CoActivation:
    """Count the co-activation of channels over images.

    Args:
        xy: (N, C, 2), each channel's landmark, heatmap cells.
        confidence: (N, C).
        least: A channel fires where its confidence is above this.
        distance: Two channels are at one place within this many cells.
    """
    channels = xy.shape[1]
    fires = confidence > least
    together = np.zeros((channels, channels), np.int64)
    for c in range(channels):  # (N, C) at a time
        near = ((xy - xy[:, c : c + 1]) ** 2).sum(axis=-1) <= distance**2
        together[c] = (near & fires & fires[:, c : c + 1]).sum(axis=0)
    return CoActivation(len(xy), fires.sum(axis=0).astype(np.int64), together)


@dataclass(frozen=True)
class Merged:
    """A channel that was merged.

    Attributes:
        channel: The channel that ended.
        into: The channel that it became part of.
        overlap: Their `CoActivation.overlap`.
    """

    channel: int
    into: int
    overlap: float


def merge(activation: CoActivation, sizes: NDArray[Any], share: float) -> tuple[NDArray[np.int64], list[Merged]]:
    """Merge channels that overlap, from the largest to the smallest.

    A channel becomes part of the largest of the channels kept so far with which it overlaps in more than `share` of the images.

    Args:
        activation: Co-activation of the C channels.
        sizes: (C,), number of labels of each channel.
        share: Overlap, 0 to 1, above which two channels are merged.

    Returns:
        The channel that each channel becomes, (C,), and the channels that were merged, in order.
    """
    overlap = activation.overlap()
    into = np.arange(len(sizes))
    kept: list[int] = []
    merged: list[Merged] = []
    for c in np.argsort(-np.asarray(sizes), kind="stable").tolist():
        overlapping = [k for k in kept if overlap[c, k] > share]
        if overlapping:
            into[c] = overlapping[0]
            merged.append(Merged(c, overlapping[0], float(overlap[c, overlapping[0]])))
        else:
            kept.append(c)
    return into, merged
