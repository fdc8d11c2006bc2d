"""Pictures of more than 8 bits fill 0 to 255 by the range that occurs; hot pixels, NaN and constants do no harm."""

import numpy as np
import pytest

from ray_kplm.datasets.deep_values import deep_to_rgb
from ray_kplm.errors import DataError

Y, X = np.mgrid[:50, :60]
SHARES = (np.sin(X / 7.0) * np.cos(Y / 9.0) + 1) / 2
SHARES = (SHARES - SHARES.min()) / np.ptp(SHARES)
GREY = np.rint(SHARES * 255)


@pytest.mark.parametrize(
    "values",
    [
        SHARES, SHARES * 255, SHARES * 1e30, SHARES * 1e-30, (SHARES - 0.5) * 3.4e38, (2 * SHARES - 1) * 1.5e308, SHARES - 7,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floats_fill_the_range(values, kind):
    if kind is np.float32 and abs(values).max() > 3.4e38:
        values = values / 1e300
    found = deep_to_rgb(values.astype(kind))
    assert np.abs(found[..., 0] - GREY).max() <= 1
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 4095), (0, 255), (0, 65535), (7000, 9000), (30_000, 50_000), (-1024, 3071)]
)
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64, np.float32])
def test_integers_fill_the_range(low, high, kind):
    if np.issubdtype(kind, np.unsignedinteger) and low < 0:
        kind = np.int16
    found = deep_to_rgb(np.rint(low + SHARES * (high - low)).astype(kind))
    assert np.abs(found[..., 0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("hot", [[65535], [65535] * 3, [0], [0, 65535]])
def test_single_hot_or_dead_pixels_are_clipped(hot):
    values = np.rint(2000 + SHARES * 1000).astype(np.uint16)
    values.ravel()[7 : 7 + len(hot)] = hot
    found = deep_to_rgb(values)[..., 0].astype(int)
    assert len(np.unique(found)) > 150
    assert np.abs(np.diff(found[10])).max() < 40
    assert set(found.ravel()[7 : 7 + len(hot)].tolist()) <= {0, 255}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", [0.001, 0.5])
def test_values_that_are_not_finite_take_no_part_in_the_range(bad, share):
    values = (100 * SHARES).astype(np.float32)
    holes = np.random.default_rng(0).random(values.shape) < share
    values[holes] = bad
    found = deep_to_rgb(values)[..., 0]
    assert np.abs(found[~holes] - GREY[~holes]).max() <= 6
    assert (found[holes] == (255 if bad == np.inf else 0)).all()


@pytest.mark.parametrize("value", [0, 4095, -3, 1e308])
def test_a_constant_picture_is_grey(value):
    assert (deep_to_rgb(np.full((9, 9), value)) == 128).all()


def test_colours_share_one_range():
    rgb = np.stack([1000 + 100 * SHARES, 1000 + 50 * SHARES, 1000 + 0 * SHARES], axis=2).astype(np.uint16)
    found = deep_to_rgb(rgb)
    assert [found[..., c].max() // 5 for c in range(3)] == [51, 25, 0]


@pytest.mark.parametrize("opaque", [255, 4095, 65535])
def test_alpha_is_on_white_and_takes_no_part_in_the_range(opaque):
    values = np.zeros((20, 20, 4), np.uint16)
    values[..., :3], values[..., 3] = 100, opaque
    values[:5, :, :3] = 300
    values[5:10, :, 3] = 0
    found = deep_to_rgb(values)
    assert (found[:10] == 255).all()
    assert (found[10:] == 0).all()
    assert (deep_to_rgb(values[..., [0, 3]]) == found).all()
    values[..., 3] = 0
    with pytest.raises(DataError, match=r"^transparent"):
        deep_to_rgb(values)


def test_white_may_be_low():
    assert np.abs(deep_to_rgb(SHARES, white_is_low=True)[..., 0] - (255 - GREY)).max() <= 1


def test_values_of_which_none_is_a_number_are_refused():
    with pytest.raises(DataError, match="no value of the picture is a finite number"):
        deep_to_rgb(np.full((9, 9), np.nan))
    with pytest.raises(DataError, match="complex128"):
        deep_to_rgb(np.zeros((9, 9), complex))


def test_a_few_values_are_their_own_range():
    assert deep_to_rgb(np.array([[0, 100, 10_000]]))[0, :, 0].tolist() == [0, 3, 255]


def test_booleans_are_black_and_white():
    assert deep_to_rgb(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]
