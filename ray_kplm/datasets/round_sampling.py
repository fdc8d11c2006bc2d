"""The images of a round (`round_images`): seeded, and drawn without replacement across rounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Selection:
    """Chosen rows of some parts. An image's index in a round is its place in their order.

    Attributes:
        parts: Names of the parts.
        rows: Chosen rows of each part, ascending.
    """

    parts: list[str]
    rows: list[NDArray[np.int64]]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(rows) for rows in self.rows)

    def sample(self, count: int, seed: tuple[int, ...], parts: int | None = None) -> Selection:
        """Return a seeded subset of at most `count` images.

        Args:
            count: Number of images.
            seed: Of the draw.
            parts: Draw from this number of parts, or from more if these have too few images; None: from all. A part is read as
                a whole, and 500 of 160,000 images drawn from all lie in 255 of 313 parts. The images of a part are often of
                one folder or video, so a sample needs several parts.
        """
        few = self if parts is None else self._draw_parts(count, seed, parts)
        if few.images <= count:
            return few
        chosen = np.sort(np.random.default_rng(seed).choice(few.images, count, replace=False))
        return _select_indices(few, chosen)

    def _draw_parts(self, count: int, seed: tuple[int, ...], parts: int) -> Selection:
        """Return a seeded choice of `parts` parts, or of more if these have fewer than `count` images."""
        order = np.random.default_rng([*seed, 1]).permutation(len(self.parts))
        ends = np.cumsum([len(self.rows[i]) for i in order])
        needed = max(parts, int(np.searchsorted(ends, count)) + 1)
        chosen = np.sort(order[:needed])
        return Selection([self.parts[i] for i in chosen], [self.rows[i] for i in chosen])


SAMPLE_PARTS = 16
"""Number of parts to sample from where each must be read: about a hundred megabytes of images in all."""


def full_selection(parts: list[str], rows: list[int]) -> Selection:
    """Return all images of a split, given its parts and their row counts."""
    return Selection(parts, [_all_rows(n) for n in rows])


@lru_cache(maxsize=4)
def _all_rows(count: int) -> NDArray[np.int64]:
    """Return the rows of a whole part: one array for all parts of that size, so that memory does not grow with the images."""
    rows = np.arange(count)
    rows.flags.writeable = False
    return rows


def draw_round(parts: list[str], rows: list[int], *, before: int, count: int, seed: int) -> Selection:
    """Return the images of a round, from a seeded order in which every image occurs once before any occurs again.

    Each pass over the dataset has an order of parts, and within a part the order is that of its rows. So a round reads only the
    parts that it needs, and its work and memory do not grow with the dataset.

    Args:
        parts: Names of the split's parts.
        rows: Images of each part.
        before: Images that the rounds before have drawn, in total; this round's begin there in the order.
        count: Images of the round.
        seed: Of the order.
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
            piece = _all_rows(rows[part])
            if start < first or last < start + rows[part]:
                piece = piece[max(first - start, 0) : last - start]
            # A part can occur twice in a round that contains the end of one pass and the start of the next.
            chosen[part] = np.union1d(chosen[part], piece) if part in chosen else piece
    return Selection([parts[i] for i in sorted(chosen)], [chosen[i] for i in sorted(chosen)])


def _select_indices(whole: Selection, chosen: NDArray[np.int64]) -> Selection:
    """Return the images at ascending indices of a selection."""
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
