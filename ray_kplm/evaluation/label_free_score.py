"""The label-free score of a detector, from its measures: one number that ranks detectors of one category.

The score is the expected distance of a landmark from its place, times a factor for each sign that landmarks have no identity:

    score = expected_distance * exp(sum of WEIGHTS[name] * shortfall(name))

A shortfall is 0 for the best value of a measure and 1 for the worst. A measure that is unknown has no factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Term:
    """How a measure enters the score.

    Attributes:
        best: Value of the measure from which on its shortfall is 0.
        worst: Value from which on its shortfall is 1.
        weight: Logarithm of the factor of the worst value.
    """

    best: float
    worst: float
    weight: float

    def shortfall(self, value: float) -> float:
        """Return how far a value is from the best one: 0 to 1."""
        return min(1.0, max(0.0, (value - self.best) / (self.worst - self.best)))


TERMS = {
    "transfer": Term(best=0.7, worst=0.5, weight=1.5),
    "mirror_identity": Term(best=0.9, worst=0.5, weight=1.0),
    "shift_error": Term(best=0.0, worst=20.0, weight=1.0),
}
"""Measures of `label_free.measure` that enter the score. `kplm bench quality` refits the weights."""


def score_of(measures: Mapping[str, Any], terms: Mapping[str, Term] = TERMS) -> float:
    """Return the label-free score, in percent of the side; lower is better.

    Args:
        measures: `expected_distance`, and the measures that `terms` names as far as they are known.
        terms: How they enter.
    """
    exponent = sum(terms[name].weight * value for name, value in shortfalls(measures, terms).items())
    return float(measures["expected_distance"]) * math.exp(exponent)


def shortfalls(measures: Mapping[str, Any], terms: Mapping[str, Term] = TERMS) -> dict[str, float]:
    """Return the shortfall of each measure that is known."""
    return {name: term.shortfall(value) for name, term in terms.items() if (value := measures.get(name)) is not None}
