"""Since when a series is different: a change of its mean, by cumulative sums, with a test by permuted blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST = 8
"""A shorter series has no change point."""
_DRAWS = 999


class Change(NamedTuple):
    """A change of the mean of a series.

    Attributes:
        at: Index of the first value after the change.
        before: Mean before it.
        after: Mean from there on.
        p: Probability of so clear a change in a series without one.
    """

    at: int
    before: float
    after: float
    p: float


def change_point(series: NDArray[np.float64], seed: int = 0) -> Change | None:
    """Return the clearest change of the mean of a series (m,) in order of time; None if it is shorter than `LEAST`.

    Values near in time are alike in videos, so whole blocks of about sqrt(m) values are permuted.

    Source: E. S. Page, Continuous Inspection Schemes, Biometrika 41, 1954; the permutation test as in W. A. Taylor, 2000.
    """
    count = len(series)
    if count < LEAST:
        return None
    rng = np.random.default_rng([seed, 29])
    blocks = np.array_split(np.arange(count), max(4, round(count / np.sqrt(count))))
    statistic, at = _largest(series)
    by_chance = [
        _largest(series[np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])])[0] for _ in range(_DRAWS)
    ]
    p = (1 + sum(value >= statistic - 1e-12 for value in by_chance)) / (1 + _DRAWS)
    return Change(at, float(series[:at].mean()), float(series[at:].mean()), p)


def _largest(series: NDArray[np.float64]) -> tuple[float, int]:
    """Return the greatest difference of the means before and after any place, in standard errors, and the place."""
    count = len(series)
    first = np.arange(1, count)
    sums = np.abs(np.cumsum(series - series.mean())[:-1])
    error = np.sqrt(first * (count - first) / count)
    inner = np.maximum(error, np.sqrt(2 * (count - 2) / count))  # a single value at an end is no change
    place = int((sums / inner).argmax())
    return float(sums[place] / inner[place]), place + 1
