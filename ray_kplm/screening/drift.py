"""Whether new images are like those of a training, and which of them are not: `kplm drift`."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from ray_kplm.screening.two_sample import ALARM, compare

Floats = NDArray[np.float64]

LEAST_IMAGES = 3
"""Fewer new images are judged one by one."""
LEAST_REFERENCE = 20
"""Fewer training images say too little of what is usual."""
DRAWS = 999
UNUSUAL = 0.05
"""Share of the training images that are as unusual as an image that is called unusual."""
ALONE, AS_GROUPED, AS_TRAINING = "alone", "as grouped", "as in training"
"""How new images are taken to depend on each other: not at all, within their groups, or in groups as in the training."""
_REASONS = 3
"""Statistics that are named as reasons for which an image is unusual, at most."""
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
        size_of_spread: Of the difference of the spreads over the images, likewise; of a statistic that only gets worse 0.
    """

    statistic: Statistic
    before: float
    after: float
    shift: float
    size_of_shift: float
    size_of_spread: float

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
        index: Its place among the new images.
        score: Root mean square of its normal scores; of training images about 1.
        share: Of the training images that are at least as unusual.
        reasons: Statistics that say so, with their normal scores, the greatest first.
    """

    index: int
    score: float
    share: float
    reasons: list[tuple[Statistic, float]]


@dataclass(frozen=True, eq=False)
class Drift:
    """The comparison of m new images with n training images.

    Attributes:
        p: Probability that images like those of the training differ so much; None: too few new images to say.
        changes: Of each statistic that is known of both, the largest first; empty without a `p`.
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
    known = np.isfinite(before).any(axis=0) & np.isfinite(after).any(axis=0)
    columns = np.flatnonzero(known)
    first, second = (np.zeros(table.shape) for table in (before, after))
    for column in columns:
        scores = NormalScores.of(before[:, column])
        worst = max(abs(scores.quantiles[0]), 1.0)
        for table, out in ((before, first), (after, second)):
            score = scores(table[:, column])
            missing = DRIFT_STATISTICS[column].worse * worst  # the detector finds nothing to measure
            out[:, column] = np.where(np.isnan(score), missing, score)
    worse = np.array([one.worse for one in DRIFT_STATISTICS])
    own, other = (_unusualness(table, worse, columns) for table in (first, second))
    share = (1 + len(own) - np.searchsorted(np.sort(own), other, side="left")) / (1 + len(own))
    few = _few_groups(reference.group)
    how = grouping or _grouping(reference.group, new.group, few)
    result = Drift(None, [], other, share, how, few, np.where(known, second, 0.0), before, after)
    if len(new) < LEAST_IMAGES:
        return result
    rng = np.random.default_rng([seed, 31])
    if how == ALONE:
        split = draw_alone(len(reference), len(new), draws, rng)
    else:
        of_new = group_numbers(new.group) if how == AS_GROUPED else len(new)
        split = draw_groups(group_numbers(reference.group), of_new, draws, rng)
    both = columns[worse[columns] == 0]
    limit = np.quantile(own, 1 - UNUSUAL)
    features = [
        np.column_stack([table[:, columns], table[:, both] ** 2, np.log(score + 0.1), (score > limit) / 0.22])
        for table, score in ((first, own), (second, other))
    ]
    sides = np.concatenate([worse[columns], np.ones(len(both) + 2)]).astype(np.int64)
    difference = compare(features[0], features[1], sides, split)
    spread = dict(zip(both, difference.size[len(columns) :], strict=False))
    changes = []
    for place, column in enumerate(columns):
        means = float(np.nanmean(before[:, column])), float(np.nanmean(after[:, column]))
        shift = (means[1] - means[0]) / max(float(np.nanstd(before[:, column])), 1e-9)
        sizes = float(difference.size[place]), float(spread.get(column, 0.0))
        changes.append(Change(DRIFT_STATISTICS[column], *means, shift, *sizes))
    changes.sort(key=lambda change: -change.size)
    return Drift(difference.p, changes, other, share, how, few, result.scores, before, after)


def _unusualness(scores: Floats, worse: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """Return the root mean square (N,) of normal scores (N, D), of which those that are better than usual count as usual."""
    bad = np.where(worse == 0, scores, np.maximum(scores * worse, 0))[:, columns]
    return np.asarray(np.sqrt((bad**2).mean(axis=1)))


def _few_groups(group: NDArray[np.int64]) -> int:
    """Return the number of groups if the images come in groups, but in too few; else 0."""
    count = int(group_numbers(group).max(initial=-1)) + 1
    return count if count < LEAST_GROUPS and count < len(group) else 0


def _grouping(reference: NDArray[np.int64], new: NDArray[np.int64], few: int) -> str:
    grouped = int(group_numbers(reference).max(initial=-1)) + 1 < len(reference)
    if few or not grouped:
        return ALONE
    return AS_GROUPED if (new != NONE).any() else AS_TRAINING
