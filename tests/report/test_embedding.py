"""Descriptors in the plane, and whose names the clusters of an earlier round get."""

import subprocess
import sys

import numpy as np
import pytest

from ray_kplm.report.charts import scatter
from ray_kplm.report.embedding import Described, match_by_place, sampled, tsne


def described(image, xy, cluster):
    cluster = np.asarray(cluster)
    return Described(np.asarray(image), np.asarray(xy, float), np.zeros((len(cluster), 2), np.float16), cluster)


def test_groups_of_descriptors_stay_apart():
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    group = np.repeat(np.arange(3), 20)
    descriptors = (centres[group] + rng.normal(0, 0.02, (60, 8))).astype(np.float16)
    plane = tsne(descriptors, seed=0)
    middles = np.stack([plane[group == g].mean(axis=0) for g in range(3)])
    nearest = np.linalg.norm(plane[:, None] - middles, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, group)


ODD = {
    "equal": "np.ones((40, 8))",
    "equal but for rounding": "1 + 1e-30 * rng.normal(size=(40, 8))",
    "tiny": "1e-30 * rng.normal(size=(40, 8))",
    "subnormal": "1e-310 * rng.normal(size=(40, 8))",
    "huge": "1e30 * rng.normal(size=(40, 8))",
    "nearly equal": "1 + 1e-7 * rng.normal(size=(40, 8))",
    "of two values": "np.repeat(np.eye(8)[:2], 20, axis=0)",
    "of four values": "np.repeat(np.eye(8)[:4], 20, axis=0)",
    "three": "rng.normal(size=(3, 8))",
    "four": "rng.normal(size=(4, 8))",
    "one": "np.ones((1, 8))",
    "of one number": "rng.normal(size=(40, 1))",
    "one number of one": "np.ones((1, 1))",
}


def test_odd_descriptors_have_finite_places_and_end_no_process():
    """In a process of its own: t-SNE of equal descriptors writes where it must not."""
    code = (
        "import sys, numpy as np\nfrom ray_kplm.report.charts import scatter\n"
        "from ray_kplm.report.embedding import tsne\nrng = np.random.default_rng(0)\n"
        "for code in sys.argv[1:]:\n print(code, flush=True)\n values = eval(code)\n plane = tsne(values, 0)\n"
        " assert plane.shape == (len(values), 2)\n assert np.isfinite(plane).all()\n"
        " assert 'nan' not in str(scatter(plane, np.zeros(len(plane), int), title=''))"
    )
    done = subprocess.run([sys.executable, "-c", code, *ODD.values()], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1]}: {done.stderr}"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_descriptors_that_are_not_finite_are_left_out(bad):
    values = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
    values[[3, 17], 2] = bad
    plane = tsne(values, seed=0)
    assert np.flatnonzero(np.isnan(plane).any(axis=1)).tolist() == [3, 17]
    assert "nan" not in scatter(plane, np.zeros(40, int), title="")
    assert np.isnan(tsne(np.full((9, 8), bad), seed=0)).all()


def test_no_descriptors_are_an_empty_picture():
    plane = tsne(np.zeros((0, 8)), seed=0)
    assert plane.shape == (0, 2)
    assert "<svg" in scatter(plane, np.zeros(0, int), title="")


def test_a_sample_is_seeded_and_keeps_points_whole():
    points = described(np.arange(100), np.arange(200).reshape(100, 2), np.arange(100))
    few = sampled(points, seed=1, most=10)
    assert len(few.image) == 10
    np.testing.assert_array_equal(few.xy[:, 0], 2 * few.cluster)
    np.testing.assert_array_equal(few.image, sampled(points, seed=1, most=10).image)
    assert sampled(points, seed=1) is points


def test_clusters_get_the_names_of_what_lies_at_their_places():
    last = described([0, 0, 1, 1], [[0.1, 0.1], [0.9, 0.9], [0.2, 0.2], [0.8, 0.8]], [0, 1, 0, 1])
    first = described(
        [0, 0, 1, 1, 1], [[0.9, 0.91], [0.11, 0.1], [0.8, 0.8], [0.2, 0.2], [0.5, 0.5]], [0, 2, 0, 2, 1]
    )  # cluster 1 lies where nothing is
    assert match_by_place(first, last, landmarks=2).tolist() == [1, -1, 0]


def test_two_clusters_at_one_place_share_no_name():
    last = described([0, 1, 2], [[0.5, 0.5]] * 3, [0, 0, 0])
    first = described([0, 1, 2], [[0.5, 0.5]] * 3, [0, 1, 1])
    assert match_by_place(first, last, landmarks=1).tolist() == [-1, 0]
