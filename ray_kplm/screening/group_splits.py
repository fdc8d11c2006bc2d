"""Samples of a training set that stand for new images: drawn by groups, such as videos, whose images are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

LEAST_GROUPS = 20
"""With fewer groups it is not known how much groups differ: each image is then taken by itself."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Pseudo-new samples of n reference images.

    Attributes:
        chosen: bool (B, n), the images of each sample; the others are the rest that it is compared with.
        factor: By which a difference between the sample of all new images and all n is smaller than one between a sample and
            its rest, as both of these have fewer images.
    """

    chosen: NDArray[np.bool_]
    factor: float


def draw_alone(images: int, new: int, draws: int, rng: np.random.Generator) -> Draws:
    """Draw samples of single images.

    Args:
        images: n, of the reference.
        new: m, number of new images; at most half of the reference is drawn.
        draws: B.
        rng: Of the draws.
    """
    size = max(1, min(new, images // 2))
    order = rng.random((draws, images)).argsort(axis=1)
    chosen = order < size
    return Draws(chosen, _factor(1 / new + 1 / images, 1 / size + 1 / (images - size)))


def draw_groups(groups: Ints, new: Ints | int, draws: int, rng: np.random.Generator) -> Draws:
    """Draw samples that come in groups as the new images do.

    Args:
        groups: (n,), group of each image of the reference, numbered from 0.
        new: (m,), group of each new image; or m, where their groups are not known: they come in groups as the reference then.
        draws: B.
        rng: Of the draws.
    """
    members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    count = new if isinstance(new, int) else len(new)
    wanted = None if isinstance(new, int) else np.sort(np.unique(new, return_counts=True)[1])[::-1]
    chosen = np.zeros((draws, len(groups)), bool)
    effective = np.zeros((draws, 2))
    for row in range(draws):
        left = min(count, len(groups) // 2)
        sizes = []
        order = rng.permutation(len(members))
        most = len(members) // 2 if wanted is None else min(len(wanted), len(members) // 2)
        for place, group in enumerate(order[:most]):
            own = members[group]
            size = min(left, len(own) if wanted is None else int(wanted[place]), len(own))
            picked = own if size == len(own) else rng.choice(own, size, replace=False)
            chosen[row, picked] = True
            sizes.append(size)
            left -= size
            if left <= 0:
                break
        rest = np.array([len(members[group]) for group in order[len(sizes) :]])
        effective[row] = _spread_of(np.array(sizes)), _spread_of(rest)
    drawn, rest_of = effective.mean(axis=0)
    of_new = drawn * chosen.sum(axis=1).mean() / count if wanted is None else _spread_of(wanted)
    of_all = _spread_of(np.array([len(own) for own in members]))
    taken = chosen.sum(axis=1).mean()
    by_image = _factor(1 / count + 1 / len(groups), 1 / taken + 1 / (len(groups) - taken))
    return Draws(chosen, max(by_image, _factor(of_new + of_all, drawn + rest_of)))


def _spread_of(sizes: Ints) -> float:
    """Return the variance of the mean of images that vary between groups of these sizes only, as a share of one image's."""
    return float((sizes.astype(np.float64) ** 2).sum() / float(sizes.sum()) ** 2)


def _factor(observed: float, drawn: float) -> float:
    return float(np.sqrt(observed / drawn))
