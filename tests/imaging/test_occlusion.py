"""Occluders hide the landmarks that they are said to hide, and leave the others as they are."""

import numpy as np

from ray_kplm.imaging.occlusion import occlude

SIDE = 64


def covered(seed, xy=None, **changes):
    rng = np.random.default_rng(100 + seed)
    picture, other = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    points = rng.uniform(8, SIDE - 8, (12, 2)) if xy is None else xy
    return picture, points, occlude(picture, other, points, np.random.default_rng(seed))


def test_hidden_landmarks_lie_on_changed_pixels_and_clear_ones_on_unchanged():
    hidden = clear = 0
    for seed in range(20):
        picture, points, made = covered(seed)
        changed = (made.picture.astype(int) != picture).any(axis=-1)
        for (x, y), is_hidden, is_clear in zip(points.round().astype(int), made.hidden, made.clear, strict=True):
            around = changed[y - 1 : y + 2, x - 1 : x + 2]
            assert not (is_hidden and is_clear)
            if is_hidden:
                assert around.all()
            if is_clear:
                assert not changed[y, x]
        hidden, clear = hidden + made.hidden.sum(), clear + made.clear.sum()
    assert 0.1 < hidden / 240 < 0.6
    assert 0.2 < clear / 240 < 0.9


def test_the_same_draws_make_the_same_picture_and_the_given_one_is_not_written_to():
    picture, _, made = covered(3)
    np.testing.assert_array_equal(made.picture, covered(3)[2].picture)
    np.testing.assert_array_equal(picture, covered(3)[0])
    assert (made.picture != covered(4)[2].picture).any()


def test_a_landmark_that_is_not_detected_is_neither_covered_nor_a_place_for_an_occluder():
    points = np.full((3, 2), np.nan)
    picture, _, made = covered(0, points)
    np.testing.assert_array_equal(made.picture, picture)
    assert not made.hidden.any()
