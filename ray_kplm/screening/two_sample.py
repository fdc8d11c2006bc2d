"""Whether new images differ from a reference in any of several statistics, by a test that is calibrated by splits.

The reference is split again and again into a sample as large as the new one and the rest, and the sample is compared with the
rest just as the new images are compared with the reference. Of each feature the difference of means is measured in units of
its standard deviation over the splits. The largest of all features decides; how large it gets by chance is read off the splits,
which takes the number of features and their correlations into account (Westfall and Young 1993).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.screening.group_splits import Draws
from ray_kplm.screening.normal_scores import NormalScores, quantiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ALARM = 0.025
"""Greatest `p` of a difference. At most 5 of 100 sets like the reference are to be called different. The reference is itself
a sample: with 0.05, 4 of 60 and 9 of 103 random halves of two training sets were called different."""
_CLIPPED = 2.0
"""Normal scores are cut here, so that a few odd images do not decide."""
_LEAST = 0.5
"""Least unit of a feature, standard errors of a sample of spread 1. A feature that is the same in nearly all images has some in
the few others, whose number in the reference says little about that in other images."""
_TAIL = 1.0
"""Normal score from which on an image counts as unusual on the whole."""
_TAIL_SCALE = 3.0
"""What is beyond has a third of the spread of a score."""


class Difference(NamedTuple):
    """How new images differ from a reference. Sizes are in units of the least that is significant: 1 or more is.

    Attributes:
        p: Probability that images like the reference differ so much in any feature.
        shift: (C,), of the mean of each statistic.
        spread: (C,), of the distance from what is usual; 0 for a statistic of which one direction counts.
        unusual: Of how unusual the images are on the whole.
    """

    p: float
    shift: Floats
    spread: Floats
    unusual: float


def compare(reference: Floats, new: Floats, worse: Ints, draws: Draws) -> Difference:
    """Compare statistics.

    Args:
        reference: (n, C), finite.
        new: (m, C), finite.
        worse: (C,): 1 if only more counts, -1 if only less does, 0 if both do.
        draws: Splits of the reference.
    """
    two_sided = worse == 0
    sides = np.concatenate([worse, np.ones(two_sided.sum() + 2, np.int64)])
    of_columns = [NormalScores.of(column) for column in reference.T]
    own = np.column_stack([s.of_reference(c) for s, c in zip(of_columns, reference.T, strict=True)])
    other = np.column_stack([s(c) for s, c in zip(of_columns, new.T, strict=True)])
    observed = _difference(own, other, worse)
    ranks = _Ranks(reference)
    by_chance = np.stack([_difference(*ranks.split(chosen), worse) for chosen in draws.chosen])
    unit = np.maximum(np.sqrt((by_chance**2).mean(axis=0)), _LEAST / np.sqrt(draws.chosen.sum(axis=1).mean()))
    observed = _directed(observed[None] / unit, sides)[0] / draws.factor
    largest = _directed(by_chance / unit, sides).max(axis=1)
    p = (1 + int((largest >= observed.max()).sum())) / (1 + len(largest))
    size = observed / np.sort(largest)[-max(1, int(ALARM * (1 + len(largest))))]
    spread = np.zeros(len(worse))
    spread[two_sided] = size[len(worse) : -2]
    return Difference(p, size[: len(worse)], spread, float(size[-2:].max()))


def unusualness(scores: Floats, worse: Ints) -> Floats:
    """Return the root mean square (N,) of normal scores (N, C), of which those that are better than usual count as usual."""
    bad = np.where(worse == 0, scores, np.maximum(scores * worse, 0))
    return np.asarray(np.sqrt((bad**2).mean(axis=1)))


def _difference(own: Floats, other: Floats, worse: Ints) -> Floats:
    """Return the differences of the means of all features, of normal scores (n, C) and (m, C) with respect to the first."""
    own, other = (np.clip(scores, -_CLIPPED, _CLIPPED) for scores in (own, other))
    first, second = unusualness(own, worse), unusualness(other, worse)
    whole = NormalScores.of(first)
    features = [
        np.column_stack([scores, np.abs(scores[:, worse == 0]), score, _TAIL_SCALE * np.maximum(score, _TAIL)])
        for scores, score in (
            (own, np.clip(whole.of_reference(first), -_CLIPPED, _CLIPPED)),
            (other, np.clip(whole(second), -_CLIPPED, _CLIPPED)),
        )
    ]
    return np.asarray(features[1].mean(axis=0) - features[0].mean(axis=0))


class _Ranks:
    """Gives the normal scores of a split's sample with respect to its rest, without sorting again."""

    def __init__(self, values: Floats) -> None:
        """Sort the columns of the reference (n, C)."""
        self._order = np.argsort(values, axis=0, kind="stable")
        ordered = np.take_along_axis(values, self._order, axis=0)
        n = np.arange(len(values))[:, None]
        rises = np.diff(ordered, axis=0) > 1e-9 * np.maximum(1, np.abs(ordered).max(axis=0))
        starts = np.concatenate([np.ones((1, values.shape[1]), bool), rises])
        ends = np.concatenate([rises, np.ones((1, values.shape[1]), bool)])
        self._first = np.maximum.accumulate(np.where(starts, n, 0), axis=0)
        self._last = np.minimum.accumulate(np.where(ends, n, len(values))[::-1], axis=0)[::-1]

    def split(self, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return the scores of the rest and of the sample, of which `chosen` (n,) says which images it has."""
        rest = ~chosen[self._order]
        count = np.concatenate([np.zeros((1, rest.shape[1]), np.int64), np.cumsum(rest, axis=0)])
        place = np.take_along_axis(count, self._first, axis=0) + np.take_along_axis(count, self._last + 1, axis=0)
        size = int((~chosen).sum())
        score = np.empty(rest.shape)
        score_here = np.where(
            rest, quantiles(2 * size)[np.clip(place - 1, 0, 2 * size - 2)], quantiles(2 * size + 2)[place]
        )
        np.put_along_axis(score, self._order, score_here, axis=0)
        return score[~chosen], score[chosen]


def _directed(difference: Floats, sides: Ints) -> Floats:
    return np.where(sides == 0, np.abs(difference), np.where(sides > 0, difference, -difference))
