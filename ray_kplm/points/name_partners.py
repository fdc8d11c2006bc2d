"""Which points the mirror image swaps: from their names, or from where they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ray_kplm.points.regressor import Floats

_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORD = re.compile(r"[A-Za-z]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where a word of camel case ends: leftEye, LEye."""
_NEAR = 0.35
"""How far, relative to the distance of the two nearest points, a mirrored point may be from its partner."""


def partners_of_names(names: Sequence[str]) -> tuple[int, ...]:
    """Return the partner of each point whose name differs from another's in `left` and `right`, or `l` and `r`, alone.

    A word of the name may be joined by any sign or by camel case: left_eye, Eye-L, leftEye, REye. A point without a partner is
    its own.
    """
    index = {_words(name): number for number, name in enumerate(names)}
    partners = []
    for number, name in enumerate(names):
        words = _words(name)
        swapped = tuple(_OTHER.get(word, word) for word in words)
        partners.append(index.get(swapped, number) if swapped != words else number)
    return _mutual(partners)


def partners_of_places(points: Floats, landmarks: Floats, landmark_partners: Sequence[int]) -> tuple[int, ...]:
    """Return the partner of each point by the reflection that swaps the mean places of partnered landmarks best.

    Args:
        points: (L, 2), mean places.
        landmarks: (K, 2), mean places.
        landmark_partners: (K,), of the landmarks; a landmark without one is its own.
    """
    alone = tuple(range(len(points)))
    if all(partner == k for k, partner in enumerate(landmark_partners)) or len(points) < 2:
        return alone
    z = landmarks[:, 0] + 1j * landmarks[:, 1]
    centre = z.mean()
    z = z - centre
    turn = (z[list(landmark_partners)] * z).sum()  # of the reflection conj(z) * turn, by least squares
    turn = turn / max(abs(turn), 1e-12)
    p = points[:, 0] + 1j * points[:, 1] - centre
    far = np.abs(p.conj()[:, None] * turn - p)
    apart = np.abs(p[:, None] - p) + np.where(np.eye(len(p)) > 0, np.inf, 0.0)
    nearest = far.argmin(axis=1)
    limit = np.maximum(_NEAR * apart.min(axis=1), 1e-9)
    return _mutual([int(k) if far[n, k] <= limit[n] else n for n, k in enumerate(nearest)])


def _mutual(partners: Sequence[int]) -> tuple[int, ...]:
    return tuple(p if partners[p] == n else n for n, p in enumerate(partners))


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(_HUMP.sub(" ", name))) + tuple(re.findall(r"\d+", name))
