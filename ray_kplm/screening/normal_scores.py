"""Numbers of any distribution on one scale: where a value stands among those of a reference, as a standard normal quantile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FARTHEST = 3.0
"""Most that is added to the score of a value beyond all of the reference. The logarithm below grows slowly, so that a single
broken value does not decide about a set."""


@dataclass(frozen=True, eq=False)
class NormalScores:
    """Gives values their normal scores with respect to a reference: 0 is its median, 1 its quantile of 84 %.

    Attributes:
        values: (n,), the reference, ascending, finite.
        quantiles: (2 n + 1,), score of a value by twice the number of smaller ones plus that of equal ones.
    """

    values: Floats
    quantiles: Floats

    @classmethod
    def of(cls, reference: Floats) -> NormalScores:
        """Return the scores with respect to the finite values of a reference (n,), of which there must be one."""
        values = np.sort(reference[np.isfinite(reference)])
        assert len(values), "a reference without a value"
        places = 2 * len(values) + 2
        return cls(values, np.array([NormalDist().inv_cdf(place / places) for place in range(1, places)]))

    @property
    def spread(self) -> float:
        """Standard deviation of the reference by its quartiles, or of all its values where the quartiles are equal."""
        low, high = np.quantile(self.values, [0.25, 0.75])
        return float((high - low) / 1.349) or float(self.values.std())

    def __call__(self, values: Floats) -> Floats:
        """Return the scores of values (...); beyond the reference they go on by the logarithm of the distance, NaN is NaN."""
        slack = 1e-9 * max(1.0, float(np.abs(self.values).max()))  # rounding is no difference
        below = np.searchsorted(self.values, values - slack, side="left")
        up_to = np.searchsorted(self.values, values + slack, side="right")
        score = self.quantiles[np.clip(below + up_to, 0, len(self.quantiles) - 1)]
        low, high = self.values[0] - slack, self.values[-1] + slack
        beyond = np.where(values > high, values - high, np.minimum(values - low, 0)) / max(self.spread, 1e-6)
        score = score + np.sign(beyond) * np.minimum(np.log1p(np.abs(beyond)), _FARTHEST)
        return np.where(np.isnan(values), math.nan, score)
