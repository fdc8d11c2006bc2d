"""Appearance at landmarks of pictures that are drawn: animals from the side, which face either way, before a fixed fence."""

import cv2
import numpy as np
import pytest

from ray_kplm.evaluation.label_free import Observations, measure
from ray_kplm.evaluation.transfer import measure_transfer
from ray_kplm.schemas import NONE

SIDE, IMAGES = 96, 48
BODY = np.array([[-24, -10], [24, -8], [-22, 2], [22, 2], [0, -8], [0, 6], [-14, 20], [14, 20]], float)
"""Landmarks of an animal that faces right, pixels about its middle: tail, head, rump, throat, back, belly and feet."""
ENDS = np.array([1, 0, 3, 2, 4, 5, 7, 6])
"""The landmark at the other end."""
FENCE = np.array([[8, 8], [88, 8], [8, 40], [88, 40], [8, 88], [88, 88], [48, 8], [48, 88]], float)


def draw(rng, facing):
    """Return a picture of an animal before a fence, and the places of `BODY`."""
    picture = np.full((SIDE, SIDE, 3), 120, np.uint8)
    for x in range(8, SIDE, 16):
        cv2.line(picture, (x, 0), (x, SIDE), (90, 110, 90), 2)
    cv2.line(picture, (0, 8), (SIDE, 8), (60, 60, 60), 2)
    middle = SIDE / 2 + rng.uniform(-10, 10, 2)
    scale = rng.uniform(0.85, 1.15)
    xy = BODY * scale + rng.normal(0, 1.5, BODY.shape)
    at = middle + xy * [facing, 1]
    tail, head, *_, rear, front = (tuple(int(v) for v in np.rint(p)) for p in at)
    centre, axes = tuple(int(v) for v in np.rint(middle)), (int(22 * scale), int(9 * scale))
    cv2.ellipse(picture, centre, axes, 0, 0, 360, (140, 80, 50), -1)
    for foot in (rear, front):
        cv2.line(picture, (foot[0], int(middle[1])), foot, (80, 50, 30), 3)
    cv2.circle(picture, head, int(8 * scale), (200, 170, 150), -1)
    cv2.circle(picture, (head[0], head[1] - 2), 2, (0, 0, 0), -1)
    cv2.line(picture, tail, (tail[0] - 4 * facing, tail[1] + 14), (20, 20, 20), 2)
    return picture, at


@pytest.fixture(scope="module")
def category():
    """Pictures (N, S, S, 3), true places (N, K, 2), and the facing of each picture, 1 or -1."""
    rng = np.random.default_rng(0)
    facing = np.where(np.arange(IMAGES) % 2, 1, -1)
    drawn = [draw(rng, way) for way in facing]
    return np.stack([picture for picture, _ in drawn]), np.stack([at for _, at in drawn]), facing


def in_mirror(xy):
    return np.stack([SIDE - 1 - xy[..., 0], xy[..., 1]], axis=-1)


def shares(category, xy, mirrored, *, facing):
    found = measure_transfer(category[0], xy, mirrored, facing=facing)
    return found.transfer, found.mirror_identity


def parts(category):
    """Head is head: also in the mirror image."""
    return category[1], in_mirror(category[1])


def ends(category):
    """The left end and the right end, whichever is the head."""
    xy = np.where((category[2] > 0)[:, None, None], category[1], category[1][:, ENDS])
    return xy, in_mirror(xy[:, ENDS])


def test_parts_look_the_same_in_other_images_and_in_the_mirror(category):
    transfer, mirror = shares(category, *parts(category), facing=True)
    assert transfer > 0.75
    assert mirror > 0.95


def test_ends_in_place_of_parts_look_less_alike(category):
    good, bad = shares(category, *parts(category), facing=True), shares(category, *ends(category), facing=False)
    assert bad[0] < good[0] - 0.03
    assert bad[1] < good[1] - 0.2


def test_identities_swapped_in_half_of_the_images_look_less_alike(category):
    good, _ = shares(category, *parts(category), facing=True)
    xy = category[1].copy()
    xy[::2] = xy[::2][:, np.roll(np.arange(len(BODY)), 3)]
    bad, _ = shares(category, xy, in_mirror(xy), facing=True)
    assert bad < good - 0.1


def test_fixed_places_on_the_background_have_the_share_of_guessing(category):
    xy = np.tile(FENCE, (IMAGES, 1, 1))
    assert shares(category, xy, xy, facing=False)[0] == pytest.approx(0.5)
    rng = np.random.default_rng(1)
    assert shares(category, xy + rng.normal(0, 0.3, xy.shape), xy, facing=False)[0] == pytest.approx(0.5, abs=0.03)


def test_random_places_have_the_share_of_guessing(category):
    xy = np.random.default_rng(2).uniform(8, 88, category[1].shape)
    assert shares(category, xy, in_mirror(xy), facing=False)[0] == pytest.approx(0.5, abs=0.04)


def test_errors_of_the_places_cost(category):
    rng = np.random.default_rng(3)
    found = [
        shares(category, category[1] + rng.normal(0, noise, category[1].shape), in_mirror(category[1]), facing=True)[0]
        for noise in (0, 4, 10)
    ]
    assert found[0] > found[1] > found[2]


def test_each_landmark_has_a_share(category):
    xy, mirrored = parts(category)
    assert (measure_transfer(category[0], xy, mirrored, facing=True).by_landmark > 0.6).all()
    moved = xy.copy()
    moved[:, 4] = np.random.default_rng(4).uniform(8, 88, (IMAGES, 2))
    by_landmark = measure_transfer(category[0], moved, mirrored, facing=True).by_landmark
    assert by_landmark[4] == pytest.approx(0.5, abs=0.05)
    assert (np.delete(by_landmark, 4) > 0.55).all()


def test_missing_landmarks_are_left_out(category):
    xy, mirrored = (points.copy() for points in parts(category))
    xy[::3, 2], mirrored[:, 5] = np.nan, np.nan
    xy[:, 7] = np.nan
    found = measure_transfer(category[0], xy, mirrored, facing=True)
    assert found.transfer > 0.7
    assert found.mirror_identity > 0.9
    assert (found.by_landmark[:7] > 0.55).all()
    assert np.isnan(found.by_landmark[7])


def test_an_image_of_two_landmarks_is_not_compared(category):
    xy, mirrored = (points.copy() for points in parts(category))
    whole = measure_transfer(category[0], xy, mirrored, facing=True).transfer
    xy[0, 2:] = np.nan
    assert measure_transfer(category[0], xy, mirrored, facing=True).transfer == pytest.approx(whole, abs=0.03)


def test_one_image_has_no_shares(category):
    found = measure_transfer(category[0][:1], category[1][:1], None, facing=True)
    assert np.isnan([found.transfer, found.mirror_identity]).all()
    assert np.isnan(found.by_landmark).all()


def score(category, xy, mirrored, *, facing=False, follows=True):
    """Return the score of a detector that finds these places, in views to within half a pixel."""
    rng = np.random.default_rng(5)
    landmarks = xy.shape[1]
    shift = rng.normal(0, 4, (IMAGES, 3, 1, 2))
    ones = np.ones((IMAGES, landmarks))
    found = xy[:, None] + follows * shift + rng.normal(0, 0.5, (IMAGES, 3, landmarks, 2))
    seen = Observations(
        side=SIDE, xy=xy, confidence=ones, sharpness=ones, separation=None, expected=xy[:, None] + shift, found=found,
        view_confidence=np.ones((IMAGES, 3, landmarks)), alone=xy, mirrored=in_mirror(mirrored), always=True,
        partners=np.arange(landmarks, dtype=np.int16) if facing else np.full(landmarks, NONE, np.int16),
        pictures=category[0],
    )  # fmt: skip
    return measure(seen)["score"]


def test_the_score_ranks_parts_before_all_that_is_none(category):
    """All of these follow views of one image, but the last two: it takes other images to tell them apart."""
    rng = np.random.default_rng(6)
    good = score(category, *parts(category), facing=True)
    swapped = category[1].copy()
    swapped[::2] = swapped[::2][:, np.roll(np.arange(len(BODY)), 3)]
    patch = category[1].mean(axis=1, keepdims=True) + (BODY + rng.normal(0, 0.2, category[1].shape)) / 6
    places = rng.uniform(8, 88, category[1].shape)
    bad = {
        "ends": score(category, *ends(category)),
        "identities swapped": score(category, swapped, in_mirror(swapped), facing=True),
        "one patch": score(category, patch, in_mirror(patch), facing=True),
        "background": score(category, FENCE + rng.normal(0, 0.3, category[1].shape), FENCE + 0 * places, follows=False),
        "random": score(category, places, places[::-1], follows=False),
    }
    assert all(value > 1.1 * good for value in bad.values()), (good, bad)
    assert bad["background"] > bad["ends"]
