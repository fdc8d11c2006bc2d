"""How plausible a layout of landmarks is."""

import numpy as np
import pytest

from ray_kplm.screening.layouts import LayoutModel, cross_fitted, size_of

SHAPE = np.array([[0, 0], [10, 0], [10, 14], [0, 14], [5, 7]], float)


def layouts(count, seed=0):
    rng = np.random.default_rng(seed)
    angle, size = rng.normal(0, 0.3, count), np.exp(rng.normal(0, 0.3, count))
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    points = SHAPE + rng.normal(0, 0.3, (count, 5, 2))
    return size[:, None, None] * (points @ turn) + rng.normal(0, 30, (count, 1, 2)), np.degrees(angle)


def test_position_size_and_turn_do_not_count():
    xy, _ = layouts(200)
    model, (other, _) = LayoutModel.fit(xy), layouts(200, seed=1)
    assert np.median(model.distance(other)) == pytest.approx(1, abs=0.3)
    moved = model.distance(other[:, [1, 0, 2, 3, 4]])
    assert moved.min() > 3 * np.quantile(model.distance(other), 0.95)


def test_the_turn_is_that_against_the_mean():
    xy, angle = layouts(200)
    turn = LayoutModel.fit(xy).turn(xy)
    assert np.std(turn - angle) < 4
    upside_down = -xy
    assert np.abs(LayoutModel.fit(xy).turn(upside_down)).mean() > 150


def test_a_layout_is_measured_by_models_that_have_not_seen_it():
    xy, _ = layouts(40)
    models, distance = cross_fitted(xy, np.arange(40))
    assert len(models) == 5
    new = np.mean([model.distance(layouts(400, seed=2)[0]) for model in models])
    assert distance.mean() == pytest.approx(new, rel=0.2)
    assert LayoutModel.fit(xy).distance(xy).mean() < 0.95 * new


def test_unknown_points_have_no_distance_and_the_size_is_that_of_the_points():
    xy, _ = layouts(30)
    xy[3, 2] = np.nan
    assert np.isnan(LayoutModel.fit(xy).distance(xy)).tolist() == [i == 3 for i in range(30)]
    square = np.array([[[0, 0], [2, 0], [2, 2], [0, 2]]], float)
    assert size_of(square)[0] == pytest.approx(2 * np.sqrt(2))
