"""Whether new images are like those of a training, and which of them are not: `kplm drift`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.schemas import NONE
from ray_kplm.screening.drift_statistics import (
    DETECTOR,
    DRIFT_STATISTICS,
    Measured,
    Statistic,
    group_numbers,
    statistics,
)
from ray_kplm.screening.group_splits import LEAST_GROUPS, draw_alone, draw_groups
from ray_kplm.screening.normal_scores import NormalScores
from ray_kplm.screening.two_sample import ALARM, compare, unusualness

Floats = NDArray[np.float64]

LEAST_IMAGES = 3
"""Fewer new images are judged one by one."""
LEAST_REFERENCE = 20
"""Fewer training images say too little of what is usual."""
DRAWS = 499
ALONE, AS_GROUPED, AS_TRAINING = "alone", "as grouped", "as in training"
"""How new images are taken to depend on each other: not at all, within their groups, or in groups as in the training."""
_REASONS = 3
"""Statistics that are named as reasons for which an image is unusual, at most."""
_WIDER = 1.15
"""Ratio of the standard deviations of normal scores from which on a statistic is said to vary more."""
_REASON = 1.5
"""Least normal score of a reason."""


@dataclass(frozen=True)
class Change:
    """How a statistic of new images differs from that of the training.

    Attributes:
        statistic: Which.
        before: Mean over the training images, as it is measured (`Statistic.is_log`).
        after: Mean over the new images.
        shift: Difference of the means in standard deviations of the training images.
        size_of_shift: Of the difference of the means, in units of the least that is significant.
        size_of_spread: Of the difference of the distances from what is usual, likewise; 0 if only one direction counts.
        varies_more: Whether the statistic varies clearly more over the new images.
    """

    statistic: Statistic
    before: float
    after: float
    shift: float
    size_of_shift: float
    size_of_spread: float
    varies_more: bool

    @property
    def size(self) -> float:
        """The larger of the two sizes."""
        return max(self.size_of_shift, self.size_of_spread)

    @property
    def is_significant(self) -> bool:
        """Whether the difference is more than chance makes, given how many statistics are looked at."""
        return self.size > 1


class Unusual(NamedTuple):
    """A new image, among the most unusual ones.

    Attributes:
        row: Its place among the new images.
        score: Root mean square of its normal scores; of training images about 1.
        share: Of the training images that are at least as unusual.
        reasons: Statistics that say so, with their normal scores, the greatest first.
    """

    row: int
    score: float
    share: float
    reasons: list[tuple[Statistic, float]]


@dataclass(frozen=True, eq=False)
class Drift:
    """The comparison of m new images with n training images.

    Attributes:
        p: Probability that images like those of the training differ so much; None: too few new images to say.
        changes: Of each statistic that is known of both, the largest first; empty without a `p`.
        unusual: Size of how unusual the images are on the whole, in units of the least that is significant.
        score: (m,), see `Unusual`.
        share: (m,), see `Unusual`.
        grouping: How the new images were taken to depend on each other.
        few_groups: Number of the training's groups if these are too few to say how much groups differ, else 0.
        scores: (m, D), normal scores of the statistics of the new images, 0 where they are not known.
        reference: (n, D), the statistics of the training images.
        new: (m, D), of the new images.
    """

    p: float | None
    changes: list[Change]
    unusual: float
    score: Floats
    share: Floats
    grouping: str
    few_groups: int
    scores: Floats = field(repr=False)
    reference: Floats = field(repr=False)
    new: Floats = field(repr=False)

    @property
    def is_drift(self) -> bool:
        """Whether the images are significantly different."""
        return self.p is not None and self.p <= ALARM

    @property
    def significant(self) -> list[Change]:
        """The changes that are significant, the largest first."""
        return [change for change in self.changes if self.is_drift and change.is_significant]

    @property
    def is_detector_affected(self) -> bool:
        """Whether the detector works less well on the new images."""
        return any(change.statistic.family == DETECTOR for change in self.significant)

    def worst(self, count: int) -> list[Unusual]:
        """Return the most unusual new images, the most unusual first."""
        order = np.argsort(-self.score, kind="stable")[:count]
        return [Unusual(int(i), float(self.score[i]), float(self.share[i]), self._reasons(int(i))) for i in order]

    def _reasons(self, index: int) -> list[tuple[Statistic, float]]:
        far = np.abs(self.scores[index])
        order = [int(i) for i in np.argsort(-far, kind="stable")[:_REASONS] if far[i] >= _REASON]
        return [(DRIFT_STATISTICS[i], float(self.scores[index, i])) for i in order]


def find_drift(
    reference: Measured, new: Measured, *, grouping: str | None = None, seed: int = 0, draws: int = DRAWS
) -> Drift:
    """Compare new images with those of the training.

    Every statistic is put on the scale of its normal scores. Their means, their spreads, and how unusual images are on the
    whole are compared by `two_sample.compare`, which is calibrated by splits of the training images.

    Args:
        reference: Of a sample of the training images, `LEAST_REFERENCE` at least.
        new: Of the new images.
        grouping: How these depend on each other. None: as grouped if they have groups; else as in training if that has groups.
        seed: Of the splits.
        draws: Number of splits.
    """
    before, after = statistics(reference, new)
    worse = np.array([one.worse for one in DRIFT_STATISTICS])
    known = np.flatnonzero(np.isfinite(before).any(axis=0) & np.isfinite(after).any(axis=0))
    first, second = _filled(before[:, known], after[:, known], worse[known])
    of_columns = [NormalScores.of(column) for column in first.T]
    own = np.column_stack([s.of_reference(column) for s, column in zip(of_columns, first.T, strict=True)])
    other = np.column_stack([s(column) for s, column in zip(of_columns, second.T, strict=True)])
    score = unusualness(other, worse[known])
    of_own = np.sort(unusualness(own, worse[known]))
    share = (1 + len(own) - np.searchsorted(of_own, score, side="left")) / (1 + len(own))
    few = _few_groups(reference.group)
    how = grouping or _grouping(reference.group, new.group, few)
    scores = np.zeros(after.shape)
    scores[:, known] = other
    result = Drift(None, [], 0.0, score, share, how, few, scores, before, after)
    if len(new) < LEAST_IMAGES:
        return result
    rng = np.random.default_rng([seed, 31])
    if how == ALONE:
        split = draw_alone(len(reference), len(new), draws, rng)
    else:
        of_new = group_numbers(new.group) if how == AS_GROUPED else len(new)
        split = draw_groups(group_numbers(reference.group), of_new, draws, rng)
    difference = compare(first, second, worse[known], split)
    changes = []
    for place, column in enumerate(known):
        means = float(np.nanmean(before[:, column])), float(np.nanmean(after[:, column]))
        shift = (means[1] - means[0]) / max(float(np.nanstd(before[:, column])), 1e-9)
        sizes = float(difference.shift[place]), float(difference.spread[place])
        wider = sizes[1] > 1 and float(other[:, place].std()) > _WIDER * float(own[:, place].std())
        changes.append(Change(DRIFT_STATISTICS[column], *means, shift, *sizes, wider))
    changes.sort(key=lambda change: -change.size)
    return replace(result, p=difference.p, changes=changes, unusual=difference.unusual)


def _filled(before: Floats, after: Floats, worse: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return statistics (n, C) and (m, C) with values for NaN: what the detector finds nothing to measure of is bad."""
    low, high = np.nanmin(before, axis=0), np.nanmax(before, axis=0)
    beyond = high - low + 1
    value = np.where(worse == 0, np.nanmedian(before, axis=0), np.where(worse > 0, high + beyond, low - beyond))
    return np.where(np.isnan(before), value, before), np.where(np.isnan(after), value, after)


def _few_groups(group: NDArray[np.int64]) -> int:
    """Return the number of groups if the images come in groups, but in too few; else 0."""
    count = int(group_numbers(group).max(initial=-1)) + 1
    return count if count < LEAST_GROUPS and count < len(group) else 0


def _grouping(reference: NDArray[np.int64], new: NDArray[np.int64], few: int) -> str:
    grouped = int(group_numbers(reference).max(initial=-1)) + 1 < len(reference)
    if few or not grouped:
        return ALONE
    return AS_GROUPED if (new != NONE).any() else AS_TRAINING
