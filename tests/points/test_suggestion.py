"""What landmarks of made objects say: bones of a moving figure, mirror partners, and landmarks that stand still."""

import numpy as np
import pytest

from ray_kplm.points.edit import read_edit
from ray_kplm.points.suggested_file import suggested_file
from ray_kplm.points.suggestion import suggest

BONES = [(0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (0, 6), (6, 7), (7, 8)]
"""Of a figure: a body of two bones from the root 0, a head, and two limbs."""
FLIP = [0, 1, 2, 3, 6, 7, 4, 5, -1]


def figures(images=400, noise=0.004, seed=0):
    """A tree of rigid bones whose joints turn, at any place, size and direction: (N, 9, 2), shares of the side."""
    rng = np.random.default_rng(seed)
    lengths = {bone: 0.08 + 0.02 * (number % 3) for number, bone in enumerate(BONES)}
    rest = {(0, 1): 1.6, (1, 2): 1.6, (2, 3): 1.6, (0, 4): -2.2, (4, 5): -2.0, (0, 6): -0.9, (6, 7): -1.1, (7, 8): -1.2}
    xy = np.zeros((images, 9, 2))
    for bone in BONES:
        angle = rest[bone] + rng.normal(0, 0.5, images)
        xy[:, bone[1]] = xy[:, bone[0]] + lengths[bone] * np.stack([np.cos(angle), np.sin(angle)], -1)
    turn = rng.uniform(-0.6, 0.6, images)
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(-1, 2, 2)
    xy = np.einsum("nij,nkj->nki", rotation * rng.uniform(0.6, 1.6, (images, 1, 1)), xy)
    return xy + rng.uniform(0.35, 0.65, (images, 1, 2)) + rng.normal(0, noise, xy.shape)


def of(xy, flip_map=FLIP, quality=None, probability=None):
    found = np.isfinite(xy).all(axis=2)
    return suggest(xy, found, np.full(found.shape, np.nan) if probability is None else probability, flip_map, quality)


def test_the_bones_of_a_figure_are_found():
    found = of(figures(), flip_map=[-1] * 9)
    assert sorted(found.edges) == sorted(BONES)
    assert max(found.variation) < 6
    assert not found.doubts
    assert found.images == 400


def test_wrong_places_and_landmarks_that_are_hidden_do_not_change_the_bones():
    xy, rng = figures(), np.random.default_rng(1)
    wrong = rng.random(xy.shape[:2]) < 0.08
    xy[wrong] = rng.uniform(size=(wrong.sum(), 2))
    xy[rng.random(xy.shape[:2]) < 0.3] = np.nan
    assert sorted(of(xy, flip_map=[-1] * 9).edges) == sorted(BONES)


def test_partners_are_mutual_ones_of_the_mirror_model():
    assert of(figures()).partners == (0, 1, 2, 3, 6, 7, 4, 5, 8)
    assert of(figures(), flip_map=[1, 2, 0, -1, 6, 7, 4, 5, -1]).partners == (0, 1, 2, 3, 6, 7, 4, 5, 8)
    assert of(figures(), flip_map=[-1] * 9).partners == tuple(range(9))


def test_what_stands_still_is_rare_or_beside_the_object_is_in_doubt_and_joined_to_nothing():
    xy, rng = figures(), np.random.default_rng(2)
    xy[:, 8] = 0.1 + rng.normal(0, 0.003, (400, 2))
    xy[40:, 3] = np.nan
    quality = {"landmarks": 9, "static_landmarks": [], "inside_box_per_landmark": [0.9] * 5 + [0.2] + [None] * 3}
    found = of(xy, quality=quality)
    assert list(found.doubts) == [3, 5, 8]
    assert found.doubts[3] == ["found in 10 % of the images"]
    assert found.doubts[5] == ["beside the object in 80 % of the images"]
    assert found.doubts[8][0].startswith("static, moves 0.4 % of the image's side")
    assert {k for edge in found.edges for k in edge} == {0, 1, 2, 4, 6, 7}
    assert found.found[3] == pytest.approx(0.1)


def test_where_nothing_moves_standing_still_is_no_doubt():
    still = np.tile(figures(1), (100, 1, 1)) + np.random.default_rng(3).normal(0, 0.002, (100, 9, 2))
    found = of(still)
    assert found.all_static
    assert not found.doubts
    assert "No landmark moves" in suggested_file(found, "runs/mine", "points.yaml")


def test_landmarks_on_one_place_may_be_merged():
    xy = figures()
    xy[:, 5] = xy[:, 4] + [0.01, 0]
    (pair,) = of(xy).on_one_place
    assert pair[:2] == (4, 5)
    assert pair[2] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("broken", [0, 3, 9])
def test_the_suggested_file_is_valid_and_says_why(broken):
    xy = figures()
    xy[:, :broken] = np.nan
    probability = np.where(np.isfinite(xy[..., 0]), 0.875, 0.25)
    found = of(xy, probability=probability)
    text = suggested_file(found, "runs/mine", "mine.yaml", "mine.png")
    edit = read_edit(text.encode(), "mine.yaml", FLIP)
    assert edit.groups == tuple((k,) for k in range(9))
    assert edit.layout.skeleton == found.edges
    assert edit.layout.partners == found.partners
    assert edit.unmentioned == edit.notes == ()
    assert text.count("drop? found in 0 % of the images") == broken
    assert text.count("found in 100 %, probability 0.88") == 9 - broken
    assert "kplm edit runs/mine mine.yaml" in text


def test_a_single_landmark_has_no_edges():
    found = of(figures()[:, :1], flip_map=[-1])
    assert found.edges == ()
    assert read_edit(suggested_file(found, "r", "f").encode(), "f", [-1]).groups == ((0,),)
