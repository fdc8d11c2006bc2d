"""The test that `kplm drift` makes, and its splits."""

import numpy as np
import pytest

from ray_kplm.screening.group_splits import draw_alone, draw_groups
from ray_kplm.screening.normal_scores import NormalScores
from ray_kplm.screening.two_sample import _Ranks, compare


def test_the_ranks_of_a_split_are_those_of_its_rest():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=40), rng.integers(0, 4, 40).astype(float)], axis=1)
    chosen = rng.random(40) < 0.3
    rest, sample = _Ranks(values).split(chosen)
    for column in range(2):
        scores = NormalScores.of(values[~chosen, column])
        assert rest[:, column] == pytest.approx(scores.of_reference(values[~chosen, column]))
        expected, clipped = scores(values[chosen, column]), np.abs(sample[:, column]).max()
        assert sample[:, column] == pytest.approx(np.clip(expected, -clipped, clipped))


def test_only_the_worse_direction_counts_where_there_is_one():
    rng = np.random.default_rng(5)
    reference, new = rng.normal(size=(200, 3)), rng.normal(size=(30, 3))
    new[:, 0] += 1.5
    splits = draw_alone(200, 30, 199, rng)
    for worse, drifts in ((0, True), (1, True), (-1, False)):
        found = compare(reference, new, np.array([worse, 0, 0]), splits)
        assert (found.p <= 0.05) == drifts
        assert (found.shift[0] > 1) == drifts
    assert compare(reference, new, np.array([1, 0, 0]), splits).spread[0] == 0


def test_a_sample_is_of_the_size_of_the_new_images_and_at_most_half():
    rng = np.random.default_rng(2)
    assert set(draw_alone(100, 20, 50, rng).chosen.sum(axis=1)) == {20}
    large = draw_alone(100, 1000, 50, rng)
    assert set(large.chosen.sum(axis=1)) == {50}
    assert large.factor == pytest.approx(np.sqrt((1 / 1000 + 1 / 100) / (2 / 50)))


def test_groups_stay_together():
    groups = np.repeat(np.arange(30), 4)
    rng = np.random.default_rng(3)
    unknown = draw_groups(groups, 12, 50, rng).chosen.reshape(50, 30, 4)
    assert set(unknown.sum(axis=2).ravel()) == {0, 4}
    known = draw_groups(groups, np.array([0, 0, 0, 1, 2]), 50, rng).chosen.reshape(50, 30, 4)
    assert [sorted(row[row > 0]) for row in known.sum(axis=2)] == [[1, 1, 3]] * 50
