"""The section of a page about mirror images: what they are, and pictures of the objects that face either way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.report.pictures import Thumbnail, thumbnail

PICTURES = 10
"""Largest number of pictures in a strip."""
_SIDE = 128
"""Longer side of a picture, pixels."""


@dataclass(frozen=True)
class Strip:
    """Pictures of images that have something in common.

    Attributes:
        title: What it is, and of how many images.
        rows: Which images are shown, as indices into those that were looked at.
        captions: How sure the facing of each is.
    """

    title: str
    rows: NDArray[np.int64]
    captions: list[str]


@dataclass(frozen=True)
class MirrorImages:
    """What mirror images are.

    Attributes:
        line: The decision and the evidence, in one line.
        strips: For objects that face either way, the strips with their pictures; none for others.
    """

    line: str
    strips: Sequence[tuple[Strip, Sequence[Thumbnail]]] = ()


def choose_strips(facing: NDArray[np.float32], doubtful: float, seed: int) -> list[Strip]:
    """Return the strips of images that face one way, of those that face the other way, and of the doubtful ones.

    Args:
        facing: (N,), see `correspondence.facing.facings`.
        doubtful: A facing of less magnitude is doubtful.
        seed: Of the choice among those that are sure. Of the doubtful ones the least sure are shown, in this order.
    """
    sure = np.abs(facing) >= doubtful
    unsure = np.flatnonzero(~sure)
    rng = np.random.default_rng(seed)
    strips = []
    for name, rows in (
        ("Facing one way", rng.permutation(np.flatnonzero(sure & (facing > 0)))),
        ("Facing the other way", rng.permutation(np.flatnonzero(sure & (facing < 0)))),
        ("Doubtful, the least sure first", unsure[np.argsort(np.abs(facing[unsure]), kind="stable")]),
    ):
        chosen = rows[:PICTURES]
        captions = [f"{100 * share:.0f} % sure" for share in np.abs(facing[chosen]).tolist()]
        strips.append(Strip(f"{name}: {100 * len(rows) / max(len(facing), 1):.0f} % of the images", chosen, captions))
    return strips


def pictures_of(strips: Sequence[Strip], images: dict[int, NDArray[np.uint8]]) -> list[tuple[Strip, list[Thumbnail]]]:
    """Return the strips with their pictures. images: by the indices that the strips have, uint8 (H, W, 3)."""
    return [(strip, [thumbnail(images[row], _SIDE) for row in strip.rows.tolist()]) for strip in strips]
