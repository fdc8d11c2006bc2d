"""Shares and layout of fitted points."""

import numpy as np

from ray_kplm.methods.predicted import Predicted
from ray_kplm.points.fit import fit_points
from ray_kplm.points.fitted_set import fitted_set
from tests.points.test_recipes import K, posed

NAMES = ["left_eye", "right_eye", "nose"]


def test_a_point_has_the_confidence_of_the_landmarks_near_it():
    xy = posed(10, 1)
    targets = np.concatenate([xy[:, [0, 4]], xy[:, [1, 2]].mean(axis=1, keepdims=True)], axis=1)
    points = fitted_set(fit_points(xy, targets).regressor, xy, targets, NAMES, range(K))
    assert points.shares.argmax(axis=1)[:2].tolist() == [0, 4]
    np.testing.assert_allclose(points.shares.sum(axis=1), 1, atol=1e-5)
    probability = np.zeros((1, K), np.float32)
    probability[0, 0] = 1
    seen = points.apply(Predicted(xy[:1].astype(np.float32) * 64, probability, probability), 64)
    assert seen.probability[0, 0] > 0.5 > seen.probability[0, 1]
    np.testing.assert_allclose(seen.xy[0, :2], 64 * xy[0, [0, 4]], atol=1.5)


def test_any_lost_landmark_makes_points_unknown_as_all_of_them_move_points():
    xy = posed(10, 2)
    points = fitted_set(fit_points(xy, xy[:, :3]).regressor, xy, xy[:, :3], NAMES, range(K))
    lost = xy[:1].astype(np.float32) * 64
    lost[0, 5] = np.nan
    assert np.isnan(points.apply(Predicted(lost, *np.ones((2, 1, K), np.float32)), 64).xy).all()


def test_partners_come_from_names_and_edges_from_labels():
    xy = posed(10, 3)
    fitted = fit_points(xy, xy[:, :3]).regressor
    layout = fitted_set(fitted, xy, xy[:, :3], NAMES, range(K)).layout
    assert layout.partners == (1, 0, 2)
    assert len(layout.skeleton) == 2
    assert fitted_set(fitted, xy, xy[:, :3], NAMES, range(K), ((0, 2),)).layout.skeleton == ((0, 2),)
