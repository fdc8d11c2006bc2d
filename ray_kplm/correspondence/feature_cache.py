"""The parts of a round's features on a shard: read once, and kept in memory as far as a budget goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.features import Features, read_descriptors, read_features
from ray_kplm.correspondence.in_memory import POINT_BYTES, Rows
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

_CACHE_SHARE = 0.75
_WORKING_BYTES = 192 * 2**20
"""This share of the memory budget, less the memory of libraries and blocks, is for features kept between passes. The rest is
for the part that is being read."""
_STATE_BYTES = 11
"""Memory that a shard has for each keypoint in any case: its landmark, its squared lengths, and whether it is excluded."""

RowsOf = Callable[[str, Sequence[NDArray[np.float16]]], list[Rows]]
"""A part and its descriptors, plain and mirrored, float16 (N, d) each -> those that a fit uses."""


class FeatureCache:
    """Some parts of features. Those within the budget are read from storage once, the others in each pass.

    A fit reads its descriptors in every iteration, all else is read three times. So where not everything fits, the descriptors
    of the fit are kept, without the rest.
    """

    def __init__(self, folder: Folder, parts: list[str], memory_bytes: int) -> None:
        """Take over parts; nothing is read yet."""
        self._folder, self._parts = folder, parts
        self._budget = memory_bytes * _CACHE_SHARE - _WORKING_BYTES
        self._whole: dict[str, Features] = {}
        self._dim = 0

    def begin(self) -> Iterator[tuple[str, Features]]:
        """Yield all parts in order and keep them as long as there is room."""
        self._whole, free = {}, self._budget
        for part in self._parts:
            features = self._load(part)
            free -= len(features.score) * _STATE_BYTES
            if _size(features) <= free:
                self._whole[part] = features
                free -= _size(features)
            yield part, features
        self._free = free + sum(_size(features) for features in self._whole.values())

    def read(self) -> Iterator[tuple[str, Features]]:
        """Yield all parts in order, from memory or read again, of which one is in memory at a time."""
        for part in self._parts:
            yield part, self._get(part)

    def hold(self, counts: dict[str, int], rows_of: RowsOf) -> dict[str, list[Rows]]:
        """Return the descriptors of a fit that stay in memory, by part; the budget holds no others.

        Args:
            counts: Number of descriptors of each part.
            rows_of: Chooses a part's descriptors.
        """
        size = {part: counts[part] * (2 * self._dim + POINT_BYTES) for part in self._parts}
        free, spare = self._free, self._free - sum(size.values())
        held: dict[str, list[Rows]] = {}
        for part in sorted(self._parts, key=lambda part: part not in self._whole):  # first those that shrink
            features = self._whole.get(part)
            if features is not None and _size(features) - size[part] <= spare:
                spare -= _size(features) - size[part]
                free -= _size(features)
                held[part] = rows_of(part, _descriptors(features))
                continue
            if size[part] <= free:
                free -= size[part]
                held[part] = [_compact(rows) for rows in self.rows(part, rows_of)]
            self._whole.pop(part, None)
        return {part: held[part] for part in self._parts if part in held}

    def rows(self, part: str, rows_of: RowsOf) -> list[Rows]:
        """Return a part's descriptors of a fit, read again if the part is not in memory."""
        whole = self._whole.get(part)
        return rows_of(part, read_descriptors(self._folder, part) if whole is None else _descriptors(whole))

    def _get(self, part: str) -> Features:
        return self._whole[part] if part in self._whole else self._load(part)

    def _load(self, part: str) -> Features:
        features = read_features(self._folder, part)
        dim = features.descriptors.shape[1]
        if self._dim not in (0, dim):
            raise DataError(
                f"{self._folder}/{part}: descriptors of {dim} numbers where other parts have {self._dim}; delete the "
                f"round's features folder to redo it"
            )
        self._dim = dim
        return features


def _descriptors(features: Features) -> Sequence[NDArray[np.float16]]:
    """Return the descriptors, plain and mirrored."""
    return features.descriptors, features.descriptors_flipped


def _size(features: Features) -> int:
    """Return the memory of a part that is kept, with what a fit knows of its points."""
    return int(features.nbytes + features.image_id.nbytes + 2 * POINT_BYTES * len(features.score))


def _compact(rows: Rows) -> Rows:
    """Return a copy of the rows alone."""
    descriptors: NDArray[np.float16] = rows.take()
    return Rows(descriptors, np.arange(len(descriptors), dtype=np.int32), rows.squares)
