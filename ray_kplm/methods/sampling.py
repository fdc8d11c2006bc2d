"""Data plans: which views a training sees, in which order, decided before it starts.

A plan is a table with one row per view, in the order of use; views 2i and 2i + 1 of a plan of pairs are a pair. The number of
workers and restarts do not change it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.sequences import Frames


@dataclass(frozen=True)
class Plan:
    """The n views of a training.

    Attributes:
        image: int32 (n,), row of the round's images whose labels apply.
        shown: int32 (n,), row of the image that is shown: the same one, or another frame of its video.
        seed: int64 (n,), of the view's augmentation.
        flip: bool (n,), whether the view shows the mirror image.
        views: views in an iteration.
        group: adjacent rows that stay on one worker; 2 for pairs.
    """

    image: NDArray[np.int32]
    shown: NDArray[np.int32]
    seed: NDArray[np.int64]
    flip: NDArray[np.bool_]
    views: int
    group: int

    @property
    def iterations(self) -> int:
        """Iterations of the training."""
        return len(self.image) // self.views

    @property
    def batch(self) -> int:
        """Groups in an iteration, which the workers share equally."""
        return self.views // self.group

    def head(self, iterations: int) -> Plan:
        """Return the plan of the first `iterations` only."""
        rows = slice(iterations * self.views)
        return Plan(self.image[rows], self.shown[rows], self.seed[rows], self.flip[rows], self.views, self.group)

    def rows(self, first: int, last: int, rank: int, workers: int) -> NDArray[np.int64]:
        """Return the rows that worker `rank` of `workers` uses in the iterations first <= i < last, in order."""
        share = self.views // workers
        grid = np.arange(first * self.views, last * self.views).reshape(last - first, self.views)
        return grid[:, rank * share : (rank + 1) * share].ravel()


def pair_plan(source: PairSource, *, iterations: int, pairs: int, flip: Flip, seed: tuple[int, ...]) -> Plan:
    """Return a plan of pairs.

    Args:
        source: draws the images of the pairs.
        iterations: of the training.
        pairs: pairs in an iteration.
        flip: see `Flip`.
        seed: of the plan.
    """
    rng = np.random.default_rng(seed)
    image, shown = source(rng, iterations * pairs)
    return _plan(rng, image.ravel(), shown.ravel(), 2 * pairs, 2, flip)


def single_plan(images: NDArray[np.int64], *, iterations: int, batch: int, flip: Flip, seed: tuple[int, ...]) -> Plan:
    """Return a plan of single images, in shuffled passes over all of them.

    Args:
        images: (m,) rows of the images.
        iterations: of the training.
        batch: views in an iteration.
        flip: see `Flip`.
        seed: of the plan.
    """
    rng = np.random.default_rng(seed)
    image = epochs(rng, images, iterations * batch)
    return _plan(rng, image, image, batch, 1, flip)


def _plan(
    rng: np.random.Generator,
    image: NDArray[np.int64],
    shown: NDArray[np.int64],
    views: int,
    group: int,
    flip: Flip,
) -> Plan:
    seeds = rng.integers(0, 2**31, image.size)
    if isinstance(flip, np.ndarray):
        flips = flip[image]
    else:
        flips = rng.random(image.size) < 0.5 if flip else np.zeros(image.size, dtype=bool)
    return Plan(image.astype(np.int32), shown.astype(np.int32), seeds, flips, views, group)


Flip = bool | NDArray[np.bool_]
"""Whether views are mirrored: each with probability 1/2, or none; or (N,), whether those of each image of the round are."""

PairSource = Callable[[np.random.Generator, int], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Draws pairs: (generator, count) -> the images whose labels apply, and the images to show, (count, 2) rows each."""


@dataclass(frozen=True)
class AnyImages:
    """Pairs of images that are drawn independently, in shuffled passes over all of them.

    Attributes:
        usable: (m,) rows of the images.
        same_image_share: share of pairs that are two views of one image. With 1, all are: equivariance (thesis 6.1.5).
    """

    usable: NDArray[np.int64]
    same_image_share: float = 0.0

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw pairs: see `PairSource`."""
        first = epochs(rng, self.usable, count)
        other = epochs(rng, self.usable, count)
        same = rng.random(count) < self.same_image_share
        image = np.stack([first, np.where(same, first, other)], axis=1)
        return image, image


@dataclass(frozen=True)
class NearbyFrames:
    """Pairs of an image and a nearby frame of its sequence; the labels of the first apply to both (docs/method.md 8).

    An image without such a neighbour is paired with itself.

    Attributes:
        usable: (m,) rows of labelled images.
        frames: sequence and frame number of all images.
        gap: largest distance of the two, in frames.
    """

    usable: NDArray[np.int64]
    frames: Frames
    gap: int

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw pairs: see `PairSource`."""
        image = epochs(rng, self.usable, count)
        shown = np.stack([image, self._neighbours(rng, image)], axis=1)
        return np.stack([image, image], axis=1), shown

    def _neighbours(self, rng: np.random.Generator, image: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a random neighbour of each image, (count,) rows."""
        sequence, frame = self.frames
        # All frames are placed on one axis, with more than `gap` between two sequences.
        low, high = frame.min(initial=0), frame.max(initial=0)
        place = sequence * (high - low + 1 + self.gap) + (frame - low)
        order = np.argsort(place, kind="stable")
        ordered = place[order]
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        start = np.searchsorted(ordered, place[image] - self.gap, side="left")
        others = np.searchsorted(ordered, place[image] + self.gap, side="right") - start - 1  # without itself
        pick = start + (rng.random(len(image)) * others).astype(np.int64)
        pick += (pick >= rank[image]) & (others > 0)
        return np.where((others > 0) & (sequence[image] >= 0), order[np.minimum(pick, len(order) - 1)], image)


def epochs(rng: np.random.Generator, images: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` rows: shuffled passes over the images one after another, the last one cut off."""
    passes = [rng.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate(passes)[:count]
