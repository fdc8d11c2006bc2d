"""What a training step will see, decided before it begins: a plan is data (order, pairing, augmentation).

One row a view, in the order of use. Views 2i and 2i + 1 of a pair plan belong together. Nothing that happens on the way,
neither the number of workers nor a restart, changes a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.sequences import Frames


@dataclass(frozen=True)
class Plan:
    """image int32 (n,): row of the round's images, whose labels hold; shown int32 (n,): row of the picture, another frame of
    the image's video or the image itself; seed int64 (n,): of its augmentation; flip bool (n,).

    `views` rows make an iteration; `group` neighbouring rows (2 for pairs) stay on one worker.
    """

    image: NDArray[np.int32]
    shown: NDArray[np.int32]
    seed: NDArray[np.int64]
    flip: NDArray[np.bool_]
    views: int
    group: int

    @property
    def iterations(self) -> int:
        return len(self.image) // self.views

    @property
    def batch(self) -> int:
        """What an iteration has to share among workers: its groups."""
        return self.views // self.group

    def head(self, iterations: int) -> Plan:
        """The same, but for all that comes after the first `iterations`."""
        rows = slice(iterations * self.views)
        return Plan(self.image[rows], self.shown[rows], self.seed[rows], self.flip[rows], self.views, self.group)

    def rows(self, first: int, last: int, rank: int, workers: int) -> NDArray[np.int64]:
        """Rows of the iterations first <= i < last that worker `rank` of `workers` takes, in order."""
        share = self.views // workers
        grid = np.arange(first * self.views, last * self.views).reshape(last - first, self.views)
        return grid[:, rank * share : (rank + 1) * share].ravel()


def pair_plan(source: PairSource, *, iterations: int, pairs: int, flip: bool, seed: tuple[int, ...]) -> Plan:
    """`pairs` pairs of the source an iteration."""
    rng = np.random.default_rng(seed)
    image, shown = source(rng, iterations * pairs)
    return _plan(rng, image.ravel(), shown.ravel(), 2 * pairs, 2, flip)


def single_plan(images: NDArray, *, iterations: int, batch: int, flip: bool, seed: tuple[int, ...]) -> Plan:
    """Every image of `images` (rows) once before any comes twice."""
    rng = np.random.default_rng(seed)
    image = epochs(rng, images, iterations * batch)
    return _plan(rng, image, image, batch, 1, flip)


def _plan(rng: np.random.Generator, image: NDArray, shown: NDArray, views: int, group: int, flip: bool) -> Plan:
    seeds = rng.integers(0, 2**31, image.size)
    flips = rng.random(image.size) < 0.5 if flip else np.zeros(image.size, dtype=bool)
    return Plan(image.astype(np.int32), shown.astype(np.int32), seeds, flips, views, group)


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
    """An image and another at most `gap` frames away in its sequence, with the first one's labels on both (docs/method.md 8).

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
