"""Whether a new sample differs from a reference in any of several features, by a test that is calibrated by splits.

The reference is split again and again into a sample as large as the new one and the rest. Each feature's difference of means
is measured in units of what one split in a hundred reaches. The largest of all features decides; how large it gets by chance
is read off the splits, which takes the number of features and their correlations into account (Westfall and Young 1993).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.screening.group_splits import Draws

Floats = NDArray[np.float64]

ALARM = 0.05
"""Greatest probability that images like those of the reference are called different."""
_UNIT = 0.99
"""Quantile of a feature's differences in the splits that is its unit."""
_LEAST_SHARE = 0.25
"""Least unit of a feature, standard errors of a sample of spread 1, so that a feature that is constant has one."""


class Difference(NamedTuple):
    """How a new sample differs from a reference.

    Attributes:
        p: Probability that a sample like the reference differs so much in any feature.
        size: (T,), difference of each feature, in units of the least that is significant: 1 or more is.
    """

    p: float
    size: Floats


def compare(reference: Floats, new: Floats, sides: NDArray[np.int64], draws: Draws) -> Difference:
    """Compare the means of features.

    Args:
        reference: (n, T), features of about unit spread.
        new: (m, T).
        sides: (T,): 1 if only a greater mean counts, -1 if only a smaller one does, 0 if both do.
        draws: Splits of the reference.
    """
    chosen = draws.chosen.astype(np.float64)
    size = chosen.sum(axis=1, keepdims=True)
    total = reference.sum(axis=0)
    of_sample = chosen @ reference
    by_chance = _directed(of_sample / size - (total - of_sample) / (len(reference) - size), sides)
    observed = _directed((new.mean(axis=0) - reference.mean(axis=0))[None], sides)[0] / draws.factor
    unit = np.maximum(np.quantile(by_chance, _UNIT, axis=0), _LEAST_SHARE / np.sqrt(size.mean()))
    largest = (by_chance / unit).max(axis=1)
    p = (1 + int((largest >= (observed / unit).max()).sum())) / (1 + len(largest))
    least = np.sort(largest)[-max(1, int(ALARM * (1 + len(largest))))]  # the largest that is not significant is below
    return Difference(p, observed / unit / least)


def _directed(difference: Floats, sides: NDArray[np.int64]) -> Floats:
    return np.where(sides == 0, np.abs(difference), np.where(sides > 0, difference, -difference))
