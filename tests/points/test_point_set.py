"""Points made of landmarks: by groups, by an affine map, and in a frame that moves with the object."""

import json

import numpy as np
import pytest

from ray_kplm.methods.predicted import Predicted
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.regressor import PointRegressor

K, SIDE = 5, 64
rng = np.random.default_rng(0)
XY = rng.uniform(5, 58, (7, K, 2)).astype(np.float32)
SEEN = Predicted(XY, rng.uniform(0, 1, (7, K)).astype(np.float32), rng.uniform(0, 1, (7, K)).astype(np.float32))


def edited(*groups) -> PointSet:
    layout = Layout("", tuple(f"p{n}" for n in range(len(groups))), tuple(range(len(groups))))
    return PointSet.of_groups(layout, groups, K)


def test_groups_keep_drop_and_merge():
    points = edited([3], [0, 4]).apply(SEEN, SIDE)
    np.testing.assert_allclose(points.xy[:, 0], XY[:, 3], atol=1e-4)
    np.testing.assert_allclose(points.xy[:, 1], XY[:, [0, 4]].mean(1), atol=1e-4)
    np.testing.assert_allclose(points.confidence[:, 1], SEEN.confidence[:, [0, 4]].mean(1), atol=1e-6)
    np.testing.assert_allclose(points.probability[:, 0], SEEN.probability[:, 3], atol=1e-6)


def test_a_lost_landmark_is_missed_only_by_the_points_made_of_it():
    xy = XY.copy()
    xy[2, 4] = np.nan
    points = edited([3], [0, 4]).apply(SEEN._replace(xy=xy), SIDE)
    assert np.isfinite(points.xy[:, 0]).all()
    assert np.isnan(points.xy[2, 1]).all()
    assert points.confidence[2, 1] == 0
    assert np.isfinite(np.delete(points.xy, 2, axis=0)).all()


def local_regressor() -> PointRegressor:
    reference = rng.normal(size=(K, 2))
    reference -= reference.mean(0)
    return PointRegressor(
        rng.normal(size=2 * K), rng.normal(size=6), rng.normal(size=(2 * K, 6)), "similarity", reference,
        rng.normal(size=(9, 2 * K)), rng.normal(size=(9, 6)), 0.8,
    )  # fmt: skip


def test_a_similarity_frame_follows_the_object():
    regressor, xy = local_regressor(), XY / SIDE
    angle, scale, shift = 0.7, 1.6, np.array([0.2, -0.4])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(
        regressor.predict(xy @ turn.T + shift), regressor.predict(xy) @ turn.T + shift, atol=1e-5
    )
    z, centre, size = regressor.in_frame(xy)
    np.testing.assert_allclose(regressor.from_frame(z.reshape(len(z), K, 2), centre, size), xy, atol=1e-9)
    np.testing.assert_allclose(regressor.to_frame(xy, centre, size).reshape(len(z), -1), z, atol=1e-9)


@pytest.mark.parametrize("regressor", [local_regressor(), PointRegressor.of_groups([[0], [1, 2], [4]], K)])
def test_a_set_is_the_same_after_storage(regressor):
    shares = np.full((3, K), 1 / K, np.float32)
    points = PointSet(Layout("", ("a", "b", "c"), (0, 2, 1), ((0, 1),)), regressor, shares)
    read = PointSet.from_dict(json.loads(json.dumps(points.to_dict())))
    assert read.layout == points.layout
    np.testing.assert_array_equal(read.apply(SEEN, SIDE).xy, points.apply(SEEN, SIDE).xy)
    with pytest.raises(ValueError, match="names"):
        PointSet.from_dict({**points.to_dict(), "names": ["a"]})
