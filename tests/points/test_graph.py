"""The points of a graph are those of NumPy, in every frame, with and without a local part."""

import io

import numpy as np
import pytest
import torch

from ray_kplm.methods.predicted import Predicted
from ray_kplm.points.graph import PointGraph
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.regressor import PointRegressor

K, L, N, SIDE = 5, 3, 7, 64
LAYOUT = Layout("", ("a", "b", "c"), (0, 1, 2))


def seen(lost: bool = False) -> Predicted:
    rng = np.random.default_rng(1)
    xy = rng.uniform(5, 58, (6, K, 2)).astype(np.float32)
    if lost:
        xy[2, 4], xy[5] = np.nan, np.nan
    confidence, probability = rng.uniform(0, 1, (2, 6, K)).astype(np.float32)
    return Predicted(xy, confidence, probability)


def point_set(frame: str, local: bool) -> PointSet:
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(K, 2)) / 4
    size = N if local else 0
    regressor = PointRegressor(
        rng.normal(size=2 * K) / 2, rng.normal(size=2 * L) / 2, rng.normal(size=(2 * K, 2 * L)), frame,
        reference - reference.mean(0) if frame == "similarity" else np.zeros((0, 0)),
        rng.normal(size=(size, 2 * K)) / 2, rng.normal(size=(size, 2 * L)), 0.8,
    )  # fmt: skip
    shares = rng.uniform(0, 1, (L, K)) * (rng.uniform(size=(L, K)) < 0.6)
    shares[:, 0] += 0.1
    return PointSet(LAYOUT, regressor, (shares / shares.sum(1, keepdims=True)).astype(np.float32))


def assert_same(points: PointSet, given: Predicted) -> None:
    with torch.inference_mode():
        found = PointGraph(points)(*map(torch.from_numpy, given[:3]), SIDE)
    expected = points.apply(given, SIDE)
    for one, other, tolerance in zip(found, expected[:3], (1e-3, 1e-6, 1e-6), strict=True):
        assert one.dtype == torch.float32
        np.testing.assert_allclose(one.numpy(), other, atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("frame", ["image", "similarity"])
def test_the_graph_gives_the_points_of_numpy(frame, local, lost):
    points = point_set(frame, local)
    assert_same(points, seen(lost))
    if not lost:
        assert np.isfinite(points.apply(seen(), SIDE).xy).all()


def test_groups_of_landmarks_are_their_means():
    assert_same(PointSet.of_groups(LAYOUT, [[3], [0, 4], [1, 2]], K), seen(lost=True))


def test_landmarks_in_one_place_have_points_too():
    one_place = np.full((2, K, 2), 20, np.float32)
    values = np.ones((2, K), np.float32)
    assert_same(point_set("similarity", True), Predicted(one_place, values, values))


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("frame", ["image", "similarity"])
def test_a_stored_program_gives_them_too_for_any_number_of_images(frame, local):
    points, given = point_set(frame, local), seen()
    shapes = (*[{0: torch.export.Dim.DYNAMIC}] * 3, None)
    example = (*(torch.zeros(4, *one.shape[1:]) for one in given[:3]), SIDE)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(PointGraph(points), example, dynamic_shapes=shapes), buffer)
    program = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    found = program(*map(torch.from_numpy, given[:3]), SIDE)
    np.testing.assert_allclose(found[0].numpy(), points.apply(given, SIDE).xy, atol=1e-3, rtol=1e-5)
