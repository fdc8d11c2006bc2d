"""Pictures that show nearly the same: found by a hash of 64 bits, confirmed on a small grey picture.

The hash has a bit for each of 8 x 8 pairs of neighbouring cells: whether the grey falls to the right (dHash). Re-encoding,
scaling and small changes of exposure flip few bits. Candidates share a quarter of their bits exactly, so the search takes time
in proportion to the number of pictures, not of pairs. A mirror image is another picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GREY_SIDE = 16
"""Side of the small grey picture, pixels."""
_BITS = 6
"""Most bits in which two hashes differ. Pairs that differ in three or fewer always share a quarter; most others do."""
_DIFFERENCE = 3.0
"""Largest mean difference of two small grey pictures, grey levels, after their mean is taken out."""
_WINDOW = 64
"""Pictures with the same quarter of a hash that each is compared with: bounds the work where very many are alike."""
_QUARTERS = 4


@dataclass(frozen=True)
class Prints:
    """What is kept of N pictures to find equal ones: 264 bytes for each.

    Attributes:
        hashes: uint64 (N,).
        grey: uint8 (N, GREY_SIDE ** 2).
    """

    hashes: NDArray[np.uint64]
    grey: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(cls, pictures: Sequence[NDArray[np.uint8]]) -> Prints:
        """Return those of grey or RGB pictures, (H, W) or (H, W, 3)."""
        grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) if p.ndim == 3 else p for p in pictures]
        hashes = np.array([_hash(picture) for picture in grey], np.uint64)
        small = [cv2.resize(p, (GREY_SIDE, GREY_SIDE), interpolation=cv2.INTER_AREA).ravel() for p in grey]
        return cls(hashes, np.array(small, np.uint8).reshape(-1, GREY_SIDE**2))

    @classmethod
    def joined(cls, pieces: Sequence[Prints]) -> Prints:
        """Return several as one, in order."""
        empty = cls(np.zeros(0, np.uint64), np.zeros((0, GREY_SIDE**2), np.uint8))
        pieces = [empty, *pieces]
        return cls(np.concatenate([p.hashes for p in pieces]), np.concatenate([p.grey for p in pieces]))


def _hash(grey: NDArray[np.uint8]) -> int:
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] < small[:, :-1]).tobytes(), "big")


def groups(prints: Prints) -> NDArray[np.int64]:
    """Return the number of each picture's group, (N,): pictures of a group are nearly the same, each as another one of it."""
    pairs = [pair for quarter in range(_QUARTERS) for pair in _alike(prints, quarter)]
    first, second = (np.concatenate([np.zeros(0, np.int64), *side]) for side in zip(*pairs, strict=True))
    size = len(prints)
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _alike(prints: Prints, quarter: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return pairs that are alike, among the pictures that have a quarter of the hash in common."""
    keys = (prints.hashes >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)
    order = np.lexsort((prints.hashes, keys))
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for step in range(1, min(_WINDOW, len(order) - 1) + 1):
        first, second = order[:-step], order[step:]
        same = keys[first] == keys[second]
        if not same.any():
            break
        first, second = first[same], second[same]
        near = np.bitwise_count(prints.hashes[first] ^ prints.hashes[second]) <= _BITS
        first, second = first[near], second[near]
        close = _differences(prints.grey, first, second) <= _DIFFERENCE
        found.append((first[close].astype(np.int64), second[close].astype(np.int64)))
    return found


def _differences(
    grey: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64], at_once: int = 20_000
) -> NDArray[np.float32]:
    """Return the mean absolute differences of pairs of small pictures after their means are taken out."""
    pieces = [np.zeros(0, np.float32)]
    for start in range(0, len(first), at_once):
        a, b = (grey[side[start : start + at_once]].astype(np.float32) for side in (first, second))
        moved = a - b
        pieces.append(np.abs(moved - moved.mean(axis=1, keepdims=True)).mean(axis=1))
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Repeats:
    """How often pictures of a dataset repeat.

    Attributes:
        distinct: Number of groups of nearly equal training pictures: as many different pictures there are.
        repeated: Share of the training pictures that are nearly equal to an earlier one.
        largest: Size of the largest group of training pictures.
        leaked: Share of the test pictures that are nearly equal to a training picture; NaN without test pictures.
        examples: Groups with two training pictures at least, the largest first, as rows of the training pictures.
        leaks: Pairs of a test row and a training row that are nearly equal.
    """

    distinct: int
    repeated: float
    largest: int
    leaked: float
    examples: list[list[int]]
    leaks: list[tuple[int, int]]


def repeats(train: Prints, test: Prints, most_examples: int = 4) -> Repeats:
    """Find pictures that repeat in the training pictures, and training pictures among the test pictures."""
    group = groups(Prints.joined([train, test]))
    own, others = group[: len(train)], group[len(train) :]
    numbers, first, counts = np.unique(own, return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most_examples]
    examples = [np.flatnonzero(own == numbers[i])[:6].tolist() for i in order.tolist() if counts[i] > 1]
    leaked = np.isin(others, numbers)
    rows = np.flatnonzero(leaked)[:most_examples]
    partners = first[np.searchsorted(numbers, others[rows])]
    return Repeats(
        distinct=len(numbers),
        repeated=1 - len(numbers) / max(len(own), 1),
        largest=int(counts.max(initial=0)),
        leaked=float(leaked.mean()) if len(others) else float("nan"),
        examples=examples,
        leaks=list(zip(rows.tolist(), partners.tolist(), strict=True)),
    )
