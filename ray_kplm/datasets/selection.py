"""Which images a round works on (`round_images`): seeded, and without replacement across rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Selection:
    """Rows of some parts, in the parts' order. An image's index in a round is its place in this order.

    parts: names; rows: for each part its chosen rows, int64, ascending.
    """

    parts: list[str]
    rows: list[NDArray[np.int64]]

    @property
    def images(self) -> int:
        return sum(len(rows) for rows in self.rows)

    def sample(self, count: int, seed: tuple[int, ...]) -> Selection:
        """A seeded subset of at most `count` images."""
        if self.images <= count:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(self.images, count, replace=False))
        return _of_indices(self, chosen)


def everything(parts: list[str], rows: list[int]) -> Selection:
    """All images of a split: its parts and their row counts."""
    return Selection(parts, [np.arange(n) for n in rows])


def draw(parts: list[str], rows: list[int], *, count: int, round_number: int, seed: int) -> Selection:
    """The images of a round: the next `count` of a seeded order that shows every image before any comes twice."""
    whole = everything(parts, rows)
    total = whole.images
    if count >= total:
        return whole
    first = round_number * count
    positions = np.arange(first, first + count)
    chosen: list[NDArray] = []
    for epoch in np.unique(positions // total):
        order = np.random.default_rng([seed, int(epoch), 17]).permutation(total)
        chosen.append(order[positions[positions // total == epoch] % total])
    return _of_indices(whole, np.unique(np.concatenate(chosen)))


def _of_indices(whole: Selection, chosen: NDArray) -> Selection:
    """The images at ascending indices of a selection."""
    ends = np.cumsum([len(rows) for rows in whole.rows])
    cuts = np.searchsorted(chosen, ends)
    pieces = np.split(chosen, cuts[:-1])
    starts = np.concatenate([[0], ends[:-1]])
    kept = [
        (part, rows[piece - start])
        for part, rows, piece, start in zip(whole.parts, whole.rows, pieces, starts, strict=True)
        if len(piece)
    ]
    return Selection([part for part, _ in kept], [rows for _, rows in kept])
