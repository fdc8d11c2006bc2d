"""Where a pair's two images come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.sequences import Frames

PairSource = Callable[[np.random.Generator, int], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""A generator and a count -> for both views of each pair (count, 2): the images whose labels hold, and the images to show."""


@dataclass(frozen=True)
class AnyImages:
    """Images drawn independently, each once before any comes twice; in a share of the cases two views of one image.

    usable: (n,) their rows. With a share of 1 a pair is one image under two augmentations: equivariance (thesis 6.1.5).
    """

    usable: NDArray[np.int64]
    same_image_share: float = 0.0

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first = epochs(rng, self.usable, count)
        other = epochs(rng, self.usable, count)
        same = rng.random(count) < self.same_image_share
        image = np.stack([first, np.where(same, first, other)], axis=1)
        return image, image


@dataclass(frozen=True)
class NearbyFrames:
    """An image and another one at most `gap` frames away in its sequence, with the first one's labels on both (METHOD 8).

    usable: (n,) rows of labelled images. An image without such a neighbour is paired with itself.
    """

    usable: NDArray[np.int64]
    frames: Frames
    gap: int

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        image = epochs(rng, self.usable, count)
        shown = np.stack([image, self._neighbours(rng, image)], axis=1)
        return np.stack([image, image], axis=1), shown

    def _neighbours(self, rng: np.random.Generator, image: NDArray) -> NDArray[np.int64]:
        sequence, frame = self.frames
        # Frames of all sequences on one axis, with more than a gap between sequences.
        low, high = frame.min(initial=0), frame.max(initial=0)
        place = sequence * (high - low + 1 + self.gap) + (frame - low)
        order = np.argsort(place, kind="stable")
        ordered = place[order]
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        start = np.searchsorted(ordered, place[image] - self.gap, side="left")
        others = np.searchsorted(ordered, place[image] + self.gap, side="right") - start - 1  # all in reach but itself
        pick = start + (rng.random(len(image)) * others).astype(np.int64)
        pick += (pick >= rank[image]) & (others > 0)
        return np.where((others > 0) & (sequence[image] >= 0), order[np.minimum(pick, len(order) - 1)], image)


def epochs(rng: np.random.Generator, images: NDArray, count: int) -> NDArray[np.int64]:
    """`count` draws: whole shuffled passes, one after the other."""
    passes = [rng.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate(passes)[:count]
