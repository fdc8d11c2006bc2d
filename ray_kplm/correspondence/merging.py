"""Which channels of a landmark detector follow the same point, and become one (thesis 5.2.2, docs/method.md 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.reduction import Reducible


@dataclass(frozen=True)
class CoActivation(Reducible):
    """How often channels fire, and how often two of them fire at one place.

    images: how many were looked at. fires int64 (C,): images in which a channel fires. together int64 (C, C): images in which
    two do, close to each other.
    """

    images: int
    fires: NDArray[np.int64]
    together: NDArray[np.int64]

    def overlap(self) -> NDArray[np.float64]:
        """Share of the images of the rarer of two channels in which both are at one place: (C, C)."""
        rarer = np.minimum(self.fires[:, None], self.fires[None, :])
        return self.together / np.maximum(rarer, 1)


def co_activation(xy: NDArray, confidence: NDArray, *, least: float, distance: float) -> CoActivation:
    """Of images' channels: xy (N, C, 2) heatmap cells, confidence (N, C).

    A channel fires where its confidence is above `least`; two are at one place within `distance` cells.
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
    """One channel that went into another, and in what share of the rarer one's images they were at one place."""

    channel: int
    into: int
    overlap: float


def merge(found: CoActivation, sizes: NDArray, share: float) -> tuple[NDArray[np.int64], list[Merged]]:
    """The channel that each becomes, (C,), and what was merged.

    From the largest (`sizes` (C,), labels of each) to the smallest: a channel goes into the largest one before it with which it
    overlaps in more than `share` of the images; that one stayed itself.
    """
    overlap = found.overlap()
    into = np.arange(len(sizes))
    stay: list[int] = []
    history: list[Merged] = []
    for c in np.argsort(-np.asarray(sizes), kind="stable").tolist():
        same = [kept for kept in stay if overlap[c, kept] > share]
        if same:
            into[c] = same[0]
            history.append(Merged(c, same[0], float(overlap[c, same[0]])))
        else:
            stay.append(c)
    return into, history
