"""What a training step will see, decided before it begins: a plan is data (order, pairing, augmentation).

One row a view, in the order of use. Views 2i and 2i + 1 of a pair plan belong together. Nothing that happens on the way,
neither the number of workers nor a restart, changes a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.methods.pairs import PairSource, epochs


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
