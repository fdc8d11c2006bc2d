"""Names, partners and skeleton of landmarks."""

import numpy as np
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.points.layout import Layout, derive_skeleton
from ray_kplm.schemas import NONE

NAN = float("nan")


def test_names_are_numbers_unless_they_are_given_and_partners_of_none_are_themselves():
    layout = Layout.of("cat", [2, NONE, 0])
    assert layout.names == ("landmark_0", "landmark_1", "landmark_2")
    assert layout.partners == (2, 1, 0)
    assert layout.symmetries == [(0, 2)]
    assert Layout.of("cat", [NONE, NONE], ["nose", "mouth, left"]).names == ("nose", "mouth, left")


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", " "], ["a", "b", "c"]])
def test_names_must_be_k_different_ones(names):
    with pytest.raises(ConfigError, match="the detector has 2 landmarks: give 2 different names"):
        Layout.of("cat", [NONE, NONE], names)


def test_a_chain_is_found_whatever_place_scale_rotation_and_mirroring():
    chain, rng = np.array([[0.0, 0], [10, 1], [19, 0], [31, 2]]), np.random.default_rng(0)
    shapes = []
    for number in range(20):
        angle, scale = rng.uniform(0, 6.28), rng.uniform(0.1, 50)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        xy = chain * (1, -1 if number % 2 else 1) @ turn * scale + rng.uniform(-1000, 1000, 2)
        xy[rng.integers(4)] = NAN
        shapes.append(xy)
    order = np.array([2, 0, 3, 1])  # landmark k is point order[k] of the chain
    skeleton = derive_skeleton((xy[order] for xy in shapes), 4)
    assert {frozenset(order[list(pair)].tolist()) for pair in skeleton} == {
        frozenset({0, 1}), frozenset({1, 2}), frozenset({2, 3}),
    }  # fmt: skip


def test_landmarks_that_are_never_found_together_are_not_joined():
    left, right = [[0.0, 0], [1, 0], [NAN, NAN], [NAN, NAN]], [[NAN, NAN], [NAN, NAN], [0.0, 0], [0, 3]]
    assert derive_skeleton([np.array(left), np.array(right)], 4) == ((0, 1), (2, 3))
    assert derive_skeleton([], 4) == ()
    assert derive_skeleton([np.array([[5.0, 5]])], 1) == ()
