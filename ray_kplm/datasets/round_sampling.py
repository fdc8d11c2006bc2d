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

    def sample(self, count: int, seed: tuple[int, ...], parts: int | None = None) -> Selection:
        """Return a seeded subset of at most `count` images.

        parts: from so many parts, or as many more as it takes. A part is read as a whole, and 500 images of 160,000 drawn from
        all lie in 255 of 313 parts; a part's images are often of one folder or video, so a sample of one part is none.
        """
        few = self if parts is None else self._few(count, seed, parts)
        if few.images <= count:
            return few
        chosen = np.sort(np.random.default_rng(seed).choice(few.images, count, replace=False))
        return _of_indices(few, chosen)

    def _few(self, count: int, seed: tuple[int, ...], parts: int) -> Selection:
        """A seeded choice of `parts` parts, or of as many more as have `count` images together."""
        order = np.random.default_rng([*seed, 1]).permutation(len(self.parts))
        ends = np.cumsum([len(self.rows[i]) for i in order])
        needed = max(parts, int(np.searchsorted(ends, count)) + 1)
        chosen = np.sort(order[:needed])
        return Selection([self.parts[i] for i in chosen], [self.rows[i] for i in chosen])


SAMPLE_PARTS = 16
"""Parts that a sample is taken from where each costs a read: about a hundred megabytes of images in all."""


def full_selection(parts: list[str], rows: list[int]) -> Selection:
    """All images of a split: its parts and their row counts."""
    return Selection(parts, [np.arange(n) for n in rows])


def draw(parts: list[str], rows: list[int], *, before: int, count: int, seed: int) -> Selection:
    """Return the images of a round: `count` of a seeded order that shows every image before any comes twice.

    before: how many images the rounds before drew, all together: this one's begin there in the order, whatever their sizes.
    The order is one of parts, anew in every pass over the dataset, and within a part that of its rows. So a round reads the
    parts that it needs and no others: neither its work nor its memory grows with the dataset.
    """
    total = sum(rows)
    if count >= total:
        return full_selection(parts, rows)
    chosen: dict[int, NDArray[np.int64]] = {}
    first, last = before, before + count
    for epoch in range(first // total, (last - 1) // total + 1):
        order = np.random.default_rng([seed, epoch, 17]).permutation(len(parts))
        ends = epoch * total + np.cumsum(np.asarray(rows)[order])
        for place in range(int(np.searchsorted(ends, first, side="right")), len(order)):
            part, start = int(order[place]), int(ends[place]) - rows[order[place]]
            if start >= last:
                break
            piece = np.arange(max(first - start, 0), min(last - start, rows[part]))
            # Where one pass ends and the next begins a part can come twice in a round.
            chosen[part] = np.union1d(chosen.get(part, piece[:0]), piece)
    return Selection([parts[i] for i in sorted(chosen)], [chosen[i] for i in sorted(chosen)])


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
