"""What a detector's landmarks are called and how they belong together, for formats that say so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.schemas import NONE

Skeleton = tuple[tuple[int, int], ...]
"""Pairs of landmarks that a line joins, indices from 0."""
_OBJECTS = 4096
"""Objects that a skeleton is derived from at most: the first ones."""


@dataclass(frozen=True)
class Layout:
    """The K landmarks of a detector.

    Attributes:
        category: Name of the category of objects.
        names: The K names.
        partners: The K landmarks that each one is in the mirror image: itself if it has no partner.
        skeleton: Pairs of landmarks that a line joins, indices from 0.
    """

    category: str
    names: tuple[str, ...]
    partners: tuple[int, ...]
    skeleton: Skeleton = ()

    @classmethod
    def of(cls, category: str, flip_map: Sequence[int] | NDArray[np.int16], names: Sequence[str] = ()) -> Layout:
        """Return the layout of a detector, without a skeleton.

        Args:
            category: Name of the category.
            flip_map: (K,) partners in the mirror image, or NONE.
            names: Of the landmarks; by default `landmark_0` and so on.

        Raises:
            ConfigError: There are not K different names.
        """
        count = len(flip_map)
        chosen = tuple(names) or _default_names(count)
        if len(chosen) != count or len(set(chosen)) != count or not all(name.strip() for name in chosen):
            raise ConfigError(
                f"names = {','.join(chosen)}: the detector has {count} landmarks: give {count} different names, or none"
            )
        partners = tuple(k if partner == NONE else int(partner) for k, partner in enumerate(flip_map))
        return cls(category, chosen, partners)

    def called(self, category: str, names: Sequence[str] = ()) -> Layout:
        """Return the same with a name of the category, and with other names of the landmarks if some are given.

        Raises:
            ConfigError: There are not K different names.
        """
        named = Layout.of(category, self.partners, names or self.names)
        return replace(self, category=category, names=named.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_named(self) -> bool:
        """Whether the landmarks have names of their own, and not their numbers."""
        return self.names != _default_names(len(self))

    @property
    def flip_map(self) -> list[int]:
        """The K partners in the mirror image, NONE for landmarks that have none."""
        return [NONE if partner == k else partner for k, partner in enumerate(self.partners)]

    def joined(self, shapes: Iterable[NDArray[np.floating[Any]]]) -> Layout:
        """Return the same with a skeleton, unless it has one: see `derive_skeleton`, also for `shapes`."""
        return self if self.skeleton else replace(self, skeleton=derive_skeleton(shapes, len(self)))

    @property
    def symmetries(self) -> list[tuple[int, int]]:
        """The pairs of landmarks that the mirror image swaps."""
        return [(k, partner) for k, partner in enumerate(self.partners) if k < partner]


def _default_names(count: int) -> tuple[str, ...]:
    return tuple(f"landmark_{k}" for k in range(count))


def derive_skeleton(shapes: Iterable[NDArray[np.floating[Any]]], landmarks: int) -> Skeleton:
    """Return the minimum spanning tree of landmarks over their mean distances, as pairs of indices from 0.

    Distances are shares of each object's size, so they do not depend on its place, scale, rotation and mirroring. Landmarks
    that are never found together are not joined; a forest is then returned.

    Args:
        shapes: (K, 2) points of objects in any frame, NaN where not found. The first thousands are used.
        landmarks: K.
    """
    total, count = np.zeros((landmarks, landmarks)), np.zeros((landmarks, landmarks))
    for xy in islice(shapes, _OBJECTS):
        is_found = np.isfinite(xy).all(axis=1)
        size = np.sqrt(xy[is_found].var(axis=0).sum()) if is_found.any() else 0.0
        if size > 0:
            apart = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) / size
            total += np.nan_to_num(apart)
            count += np.isfinite(apart)
    return minimum_spanning_forest(np.where(count > 0, total / np.maximum(count, 1), np.inf))


def minimum_spanning_forest(distances_KK: NDArray[np.float64]) -> Skeleton:
    """Return the edges of the forest, sorted, by Kruskal's algorithm; infinite distances are no edges."""
    tree_of = np.arange(len(distances_KK))
    pairs = np.argwhere(np.triu(np.isfinite(distances_KK), 1))
    edges = []
    for a, b in pairs[np.argsort(distances_KK[tuple(pairs.T)], kind="stable")].tolist():
        if tree_of[a] != tree_of[b]:
            edges.append((a, b))
            tree_of[tree_of == tree_of[b]] = tree_of[a]
    return tuple(sorted(edges))
