"""Ranges of a column."""

import numpy as np
import pytest

from ray_kplm.errors import ConfigError, DataError
from ray_kplm.evaluation.buckets import bucketed

COLUMNS = {"yaw": np.array([0.0, -30.0, 30.0, 59.9, 90.0, 91.0, np.nan]), "facing": [1, 0, 1, 1, 0, 0, np.nan]}


def held(text):
    found = bucketed(text, COLUMNS)
    return {bucket.name: np.flatnonzero(bucket.images).tolist() for bucket in found.buckets}, found.left_out


def test_ranges_include_their_start_and_the_last_one_also_its_end():
    assert held("yaw=0,30,60,90") == ({"0 to 30": [0], "30 to 60": [2, 3], "60 to 90": [4]}, 3)


def test_bars_around_the_column_take_absolute_values():
    found, left_out = held("|yaw|=0,30,60,90")
    assert found["30 to 60"] == [1, 2, 3]
    assert left_out == 2
    assert bucketed("|yaw|=0,30", COLUMNS).column == "|yaw|"


def test_without_edges_each_value_is_a_bucket():
    assert held("facing") == ({"0": [1, 4, 5], "1": [0, 2, 3]}, 1)


@pytest.mark.parametrize("edges", ["yaw=", "yaw=3", "yaw=3,1", "yaw=1,1", "yaw=a,b"])
def test_edges_must_increase(edges):
    with pytest.raises(ConfigError, match="increasing numbers"):
        bucketed(edges, COLUMNS)


def test_many_values_need_edges():
    with pytest.raises(ConfigError, match=r"13 distinct values; give ranges, as in x=0,6,12"):
        bucketed("x", {"x": np.arange(13)})


def test_an_unknown_column_is_reported_with_the_known_ones():
    with pytest.raises(DataError, match="no column 'roll' of numbers; it has facing, yaw"):
        bucketed("roll=0,1", COLUMNS)
    with pytest.raises(DataError, match="it has none"):
        bucketed("roll=0,1", {})
