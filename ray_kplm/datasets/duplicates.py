"""Stored pictures that are the same, byte for byte, by digests of 16 bytes for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

DIGEST_BYTES = 16


class Repeat(NamedTuple):
    """A picture that an earlier one equals: the part of each, counted as given, and the row in it."""

    part: int
    row: int
    first_part: int
    first_row: int


def digests_of(pictures: Sequence[bytes]) -> bytes:
    """Return the digests of pictures, one after another."""
    return b"".join(hashlib.sha256(picture).digest()[:DIGEST_BYTES] for picture in pictures)


def find_repeats(parts: Sequence[bytes]) -> Iterator[Repeat]:
    """Yield the pictures that equal an earlier one, in order. It takes about 50 bytes of memory for a picture.

    Args:
        parts: The digests of each part's pictures, as `digests_of` returns them.
    """
    counts = [len(digests) // DIGEST_BYTES for digests in parts]
    ends = np.cumsum([0, *counts])
    halves = np.frombuffer(b"".join(parts), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal pictures stay in order
    ordered = halves[order]
    same = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)]) if len(order) else np.zeros(0, bool)
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    first = np.empty(len(order), np.int64)
    first[order] = order[starts]
    repeated = np.flatnonzero(first != np.arange(len(order)))
    for index in repeated.tolist():
        part, first_part = (int(np.searchsorted(ends, at, side="right")) - 1 for at in (index, first[index]))
        yield Repeat(part, index - int(ends[part]), first_part, int(first[index] - ends[first_part]))
