"""Template choice by repeatability, and matching of the template with other images."""

import numpy as np

from ray_kplm.correspondence.alignment import DriftOptions
from ray_kplm.correspondence.template_matching import choose_template, match_template, most_repeatable, pad_points
from ray_kplm.schemas import NONE

OPTIONS = DriftOptions()
SHAPE = np.array([[20, 20], [44, 18], [30, 34], [22, 50], [46, 48], [33, 60], [12, 36], [54, 38]], float)


def views(rng, count: int) -> list[np.ndarray]:
    """The shape, moved and scaled, each with one point missing."""
    made = []
    for _ in range(count):
        moved = (SHAPE - 32) * rng.uniform(0.9, 1.1, 2) + 32 + rng.uniform(-4, 4, 2) + rng.normal(0, 0.5, SHAPE.shape)
        made.append(np.delete(moved, rng.integers(len(SHAPE)), axis=0))
    return made


def test_the_complete_and_central_image_is_chosen():
    rng = np.random.default_rng(0)
    points = views(rng, 20)
    points[7] = SHAPE + rng.normal(0, 0.3, SHAPE.shape)  # has all points
    points[3] = rng.uniform(5, 60, (8, 2))  # has as many, elsewhere
    shares = []
    best, kept = choose_template(
        points,
        np.array([3, 7, 9]),
        8,
        options=OPTIONS,
        max_distance=5,
        progress=lambda share, text: shares.append(share),
    )
    assert best == 7
    np.testing.assert_array_equal(kept.xy, points[7])
    assert 0.8 < kept.score <= 1
    assert shares == [1 / 3, 2 / 3, 1]


def test_points_that_other_images_lack_are_left_out_of_the_template():
    rng = np.random.default_rng(1)
    points = views(rng, 40)
    clutter = rng.uniform(5, 60, (60, 2))
    clutter = clutter[np.linalg.norm(clutter[:, None] - SHAPE, axis=-1).min(axis=1) > 6][:8]
    order = rng.permutation(16)
    template = np.concatenate([SHAPE, clutter])[order]
    kept = most_repeatable(template, pad_points(points), 8, options=OPTIONS, max_distance=5)
    np.testing.assert_array_equal(kept.xy, template[order < 8])  # the shape's, in the template's order
    assert 0.75 < kept.score < 0.95  # each image lacks one of eight
    best, chosen = choose_template([*points, template], np.array([2, 40]), 8, options=OPTIONS, max_distance=5)
    assert best == 40
    np.testing.assert_array_equal(chosen.xy, kept.xy)


def test_a_template_with_fewer_points_than_wanted_keeps_all_and_scores_lower():
    points = pad_points(views(np.random.default_rng(3), 40))
    whole = most_repeatable(SHAPE, points, 8, options=OPTIONS, max_distance=5)
    few = most_repeatable(SHAPE[:5], points, 8, options=OPTIONS, max_distance=5)
    np.testing.assert_array_equal(few.xy, SHAPE[:5])
    assert few.score <= 5 / 8 < whole.score


def test_points_are_matched_and_missing_ones_are_filled_in_from_the_aligned_template():
    rng = np.random.default_rng(2)
    gone = np.delete(SHAPE, 4, axis=0) + np.array([3, -2])
    order = rng.permutation(len(gone))
    clutter = rng.uniform(5, 60, (2, 2))
    points = pad_points([gone[order], clutter, SHAPE[::-1]])
    matches = match_template(SHAPE, points, options=OPTIONS, max_distance=5, min_matched=0.5)
    assert matches.usable.tolist() == [True, False, True]
    own = np.delete(np.arange(len(SHAPE)), 4)
    np.testing.assert_array_equal(matches.index[0][own], np.argsort(order))
    np.testing.assert_allclose(matches.xy[0][own], SHAPE[own] + [3, -2])
    assert matches.index[0][4] == NONE
    assert np.linalg.norm(matches.xy[0][4] - (SHAPE[4] + [3, -2])) < 2
    np.testing.assert_array_equal(matches.index[2], np.arange(len(SHAPE))[::-1])
