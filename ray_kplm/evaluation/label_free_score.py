"""The label-free score of a detector, from its measures: one number that ranks detectors of one category.

    score = SCALE * expected_distance ** DISTANCE * exp(sum of weight * shortfall)

A shortfall is 0 for the best value of a measure and 1 for the worst. A measure that is unknown has no term.

The numbers were fitted on 2026-11-30 by least squares of the logarithm of the forward NME within each category, weights not
negative: 34 checkpoints of trained runs (the demo category, faces, cattle), and 96 detectors simulated from the annotation of
cattle, faces, X-rays and people. These include landmarks with errors, on the background, in one patch, at random, with swapped
identities, and at the ends of the object in place of its parts. `mirror_identity` and `shift_error` had weights near 0 and are
left out (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCALE = 1.3
"""Brings the score to the size of a forward NME, in percent. It does not change any ranking."""
DISTANCE = 0.1
"""Power of the expected distance. It is small: landmarks that are found again to within a pixel may have no identity."""


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
    "transfer": Term(best=1.0, worst=0.5, weight=0.95),
    "landmark_transfer": Term(best=1.0, worst=0.5, weight=1.44),
}
"""Measures of `label_free.measure` that enter the score."""


def score_of(measures: Mapping[str, Any], terms: Mapping[str, Term] = TERMS) -> float:
    """Return the label-free score; lower is better.

    Args:
        measures: `expected_distance`, and the measures that `terms` names as far as they are known.
        terms: How they enter.
    """
    exponent = sum(terms[name].weight * value for name, value in shortfalls(measures, terms).items())
    return SCALE * math.pow(float(measures["expected_distance"]), DISTANCE) * math.exp(exponent)


def shortfalls(measures: Mapping[str, Any], terms: Mapping[str, Term] = TERMS) -> dict[str, float]:
    """Return the shortfall of each measure that is known."""
    return {name: term.shortfall(value) for name, term in terms.items() if (value := measures.get(name)) is not None}
