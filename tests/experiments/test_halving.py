"""Which trials go on."""

import math

import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.experiments.halving import Halving


def test_rungs_are_ever_farther_apart():
    assert Halving(1, 3).rungs(34) == [1, 3, 9, 27]
    assert Halving(2, 2).rungs(16) == [2, 4, 8, 16]
    assert Halving(0, 4).rungs(5) == [0, 1, 4]
    assert Halving(3, 3).rungs(2) == []
    assert Halving(1, 1.2).rungs(4) == [1, 2, 3, 4]


def test_the_best_share_of_those_that_came_so_far_goes_on():
    halving = Halving(1, 3)
    assert not halving.stops(9.0, [])  # nobody to compare with
    assert halving.stops(9.1, [9.0])
    assert not halving.stops(8.9, [9.0])
    assert not halving.stops(9.0, [9.0])  # one of two alike is not worse
    seen = [1.0, 2.0, 3.0, 4.0, 5.0]  # with a sixth, two go on
    assert not halving.stops(1.5, seen)
    assert halving.stops(2.5, seen)


def test_no_objective_is_the_worst_one():
    assert Halving().stops(None, [9.0])
    assert Halving().stops(math.nan, [9.0])
    assert not Halving().stops(9.0, [None, None])


def test_wrong_options_are_errors():
    with pytest.raises(ConfigError, match=r"--reduction 1: must be more than 1"):
        Halving(1, 1)
    with pytest.raises(ConfigError, match=r"--grace-rounds -1: must be at least 0"):
        Halving(-1)
