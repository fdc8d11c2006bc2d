"""Drift on made measurements: how often images of the same kind are called different, and others are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ray_kplm.schemas import NONE
from ray_kplm.screening.drift import ALONE, AS_GROUPED, AS_TRAINING, find_drift
from ray_kplm.screening.drift_statistics import DRIFT_STATISTICS, Measured, group_numbers
from ray_kplm.screening.image_statistics import STATISTICS

K, SIDE, DRAWS = 6, 96, 99
SHAPE = np.array([[20, 20], [70, 22], [45, 40], [25, 70], [68, 72], [48, 60]], float)


def made(images: int, rng: np.random.Generator, *, groups: int = 0, alike: float = 0.0) -> Measured:
    """Measurements of images; those of a group share a part of their statistics, `alike` of the variance."""
    group = np.sort(rng.integers(0, groups, images)) if groups else np.full(images, NONE)

    def normal(columns: int) -> np.ndarray:
        own = rng.normal(size=(images, columns))
        shared = rng.normal(size=(max(groups, 1), columns))[np.maximum(group, 0)]
        return np.sqrt(1 - alike) * own + np.sqrt(alike) * shared

    return Measured(
        side=SIDE,
        picture=normal(len(STATISTICS)),
        xy=SHAPE + rng.normal(size=(images, K, 2)) + 2 * normal(2)[:, None],
        confidence=0.6 + 0.1 * normal(K),
        sharpness=0.7 + 0.05 * normal(K),
        probability=1 / (1 + np.exp(-2 - normal(K))),
        motion_error=np.exp(0.3 * normal(1)[:, 0] - 3),
        mirror_error=np.exp(0.3 * normal(1)[:, 0] - 3),
        separation=0.5 + 0.1 * normal(1)[:, 0],
        clusters_found=np.round(rng.uniform(0.7, 1, images), 1),
        facing=np.full(images, np.nan),
        group=group,
    )


def alarms(count: int, make) -> int:
    return sum(find_drift(*make(np.random.default_rng(seed)), seed=seed, draws=DRAWS).is_drift for seed in range(count))


# Of 20 alarms of a chance of 5 % more than 4 are raised with a probability of 0.3 %.
@pytest.mark.parametrize("new", [3, 20, 90])
def test_images_of_the_same_kind_are_no_drift(new):
    def halves(rng):
        measured = made(180, rng)
        return measured.take(np.arange(180 - new)), measured.take(np.arange(180 - new, 180))

    assert alarms(20, halves) <= 4


@pytest.mark.parametrize("known", [True, False])
def test_new_groups_of_the_same_kind_are_no_drift(known):
    def split(rng):
        measured = made(150, rng, groups=30, alike=0.7)
        away = measured.group >= 25
        new = measured.take(away)
        return measured.take(~away), new if known else replace(new, group=np.full(len(new), NONE))

    assert alarms(20, split) <= 4


def test_frames_taken_one_by_one_would_be_called_different():
    """What the groups are for."""
    measured = made(240, np.random.default_rng(0), groups=48, alike=0.7)
    away = measured.group >= 44
    known, new = measured.take(~away), measured.take(away)
    assert find_drift(known, new, draws=DRAWS).grouping == AS_GROUPED
    assert find_drift(known, replace(new, group=np.full(len(new), NONE)), draws=DRAWS).grouping == AS_TRAINING
    assert find_drift(known, new, grouping=ALONE, draws=DRAWS).p < find_drift(known, new, draws=DRAWS).p


@pytest.mark.parametrize(("images", "shift"), [(20, 1.5), (50, 1.0), (200, 0.5)])
def test_a_change_is_seen_and_named(images, shift):
    rng = np.random.default_rng(2)
    reference, new = made(300, rng), made(images, rng)
    new.picture[:, STATISTICS.index("sharpness")] -= shift
    drift = find_drift(reference, new, draws=DRAWS)
    assert drift.is_drift
    assert not drift.is_detector_affected
    first = drift.significant[0]
    assert first.statistic.name == "sharpness"
    assert first.shift == pytest.approx(-shift, abs=0.5)


def test_a_detector_that_works_worse_is_told_and_one_that_works_better_is_no_drift():
    rng = np.random.default_rng(3)
    reference, new = made(300, rng), made(60, rng)
    worse = find_drift(reference, replace(new, confidence=new.confidence - 0.15), draws=DRAWS)
    assert worse.is_drift
    assert worse.is_detector_affected
    assert not find_drift(reference, replace(new, confidence=new.confidence + 0.15), draws=DRAWS).is_drift


def test_landmarks_that_fall_apart_are_an_implausible_layout():
    rng = np.random.default_rng(4)
    reference, new = made(300, rng), made(40, rng)
    new = replace(new, xy=new.xy[:, [1, 0, 3, 2, 5, 4]])
    assert "layout_distance" in [one.statistic.name for one in find_drift(reference, new, draws=DRAWS).significant]


def test_a_few_odd_images_among_many_are_found():
    rng = np.random.default_rng(5)
    reference, new = made(300, rng), made(60, rng)
    new.picture[:8] += 4
    drift = find_drift(reference, new, draws=DRAWS)
    assert drift.is_drift
    worst = drift.worst(8)
    assert {one.row for one in worst} == set(range(8))
    assert all(one.share < 0.01 for one in worst)
    assert worst[0].reasons[0][1] > 2


def test_one_image_is_judged_by_itself():
    rng = np.random.default_rng(6)
    reference, new = made(300, rng), made(1, rng)
    drift = find_drift(reference, new)
    assert (drift.p, drift.changes, drift.is_drift) == (None, [], False)
    assert drift.share[0] > 0.05
    new.picture[:] = 30
    assert find_drift(reference, new).share[0] < 0.01


def test_what_is_not_measured_is_left_out_and_what_cannot_be_measured_is_bad():
    rng = np.random.default_rng(7)
    reference, new = made(300, rng), made(40, rng)
    names = {change.statistic.name for change in find_drift(reference, new, draws=DRAWS).changes}
    assert names == {one.name for one in DRIFT_STATISTICS} - {"facing"}
    none = replace(new, separation=np.where(np.arange(40) < 30, np.nan, new.separation))
    assert find_drift(reference, none, draws=DRAWS).significant[0].statistic.name == "separation"


def test_few_groups_are_taken_image_by_image():
    rng = np.random.default_rng(8)
    drift = find_drift(made(200, rng, groups=3), made(40, rng, groups=2), draws=DRAWS)
    assert (drift.few_groups, drift.grouping) == (3, ALONE)


def test_images_without_a_group_are_groups_of_their_own():
    assert group_numbers(np.array([4, NONE, 4, NONE])).tolist() == [0, 1, 0, 2]
