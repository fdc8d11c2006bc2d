"""The simulation of labels on made points: images in groups, of which each has its own shape."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.bench import suggest
from ray_kplm.bench.suggest import _Annotated, _Features, _forward_nme, _point_sets, _simulate, lines
from tests.points.test_selection import groups


def annotated(of_image: np.ndarray, points: int = 3) -> _Annotated:
    """Landmarks of a group are turned about the middle, and so are the points, which landmarks give exactly."""
    rng = np.random.default_rng(0)
    shape, share = rng.uniform(0.2, 0.8, size=(4, 2)), rng.dirichlet(np.ones(4), size=points)

    def seen(of_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = of_image * 0.3
        turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], 1), np.stack([np.sin(angle), np.cos(angle)], 1)], 1)
        xy = 0.5 + np.einsum("nij,kj->nki", turn, shape - 0.5)
        return xy, share @ xy

    (xy, truth), (test_xy, test_truth) = seen(of_image), seen(np.unique(of_image))
    return _Annotated(xy, truth, test_xy, test_truth, np.full(len(test_xy), 0.5))


def test_points_that_follow_from_the_landmarks_have_no_error():
    data = annotated(groups([10, 10, 10])[1])
    assert _forward_nme(data, np.arange(30)) < 1.0
    hidden = data._replace(truth=np.where(np.arange(3)[:, None] == 1, np.nan, data.truth))
    assert _forward_nme(hidden, np.arange(30)) > _forward_nme(data, np.arange(30))


def test_diverse_images_are_better_than_any_where_most_are_the_same(monkeypatch):
    monkeypatch.setattr(suggest, "BUDGETS", (5, 8))
    features, of_image = groups([90, 4, 4, 4, 4])
    found = _simulate(annotated(of_image), _Features(features, np.zeros(len(features))), 4, ("diverse",))
    assert found.keys() == {"diverse", "random"}
    assert found["random"]["better_by"] == [0, 0]
    assert found["diverse"]["better_by"][0] > 0
    figures = {"repetitions": 4, "budgets": [5, 8], "forward_nme": {"made": found}}
    assert [line.split()[0] for line in lines(figures)[2:]] == ["made", "diverse", "random"]


def test_of_68_points_the_five_of_other_data_sets_are_simulated_too():
    data = annotated(np.zeros(6, int), points=68)
    sets = _point_sets(data)
    assert list(sets) == ["5 points", "68 points"]
    np.testing.assert_allclose(sets["5 points"].truth[:, 0], data.truth[:, 36:42].mean(axis=1))
    np.testing.assert_allclose(sets["5 points"].test_truth[:, 2], data.test_truth[:, 30])
    assert list(_point_sets(annotated(np.zeros(6, int)))) == ["3 points"]


@pytest.mark.parametrize("uri", ["nowhere"])
def test_a_run_that_is_none_is_refused(uri, capsys):
    from ray_kplm.cli.main import main

    assert main(["bench", "suggest", uri]) == 4
