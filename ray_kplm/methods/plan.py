"""What a training step will see, decided before it begins: a plan is data (order, pairing, augmentation).

One row a view, in the order of use. Views 2i and 2i + 1 of a pair plan belong together. Nothing that happens on the way,
neither the number of workers nor a restart, changes a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plan:
    """image int32 (n,): row of the round's images; seed int64 (n,): of its augmentation; flip bool (n,).

    `views` rows make an iteration; `group` neighbouring rows (2 for pairs) stay on one worker.
    """

    image: NDArray[np.int32]
    seed: NDArray[np.int64]
    flip: NDArray[np.bool_]
    views: int
    group: int

    @property
    def iterations(self) -> int:
        return len(self.image) // self.views

    def rows(self, first: int, last: int, rank: int, workers: int) -> NDArray[np.int64]:
        """Rows of the iterations first <= i < last that worker `rank` of `workers` takes, in order."""
        share = self.views // workers
        grid = np.arange(first * self.views, last * self.views).reshape(last - first, self.views)
        return grid[:, rank * share : (rank + 1) * share].ravel()


def pair_plan(
    images: NDArray,
    *,
    iterations: int,
    pairs: int,
    same_image_share: float,
    flip: bool,
    seed: tuple[int, ...],
) -> Plan:
    """Pairs of images drawn independently from `images` (rows), or, in a share of the cases, two views of one image."""
    rng = np.random.default_rng(seed)
    first = _epochs(rng, images, iterations * pairs)
    other = _epochs(rng, images, iterations * pairs)
    same = rng.random(first.size) < same_image_share
    image = np.stack([first, np.where(same, first, other)], axis=1).ravel()
    return _plan(rng, image, 2 * pairs, 2, flip)


def single_plan(images: NDArray, *, iterations: int, batch: int, flip: bool, seed: tuple[int, ...]) -> Plan:
    """Every image of `images` (rows) once before any comes twice."""
    rng = np.random.default_rng(seed)
    return _plan(rng, _epochs(rng, images, iterations * batch), batch, 1, flip)


def _epochs(rng: np.random.Generator, images: NDArray, count: int) -> NDArray:
    """`count` draws: whole shuffled passes, one after the other."""
    passes = [rng.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate(passes)[:count]


def _plan(rng: np.random.Generator, image: NDArray, views: int, group: int, flip: bool) -> Plan:
    seeds = rng.integers(0, 2**31, image.size)
    flips = rng.random(image.size) < 0.5 if flip else np.zeros(image.size, dtype=bool)
    return Plan(image.astype(np.int32), seeds, flips, views, group)
