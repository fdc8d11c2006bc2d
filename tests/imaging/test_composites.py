"""Composites of an object and a background that are known."""

import numpy as np
import pytest

from ray_kplm.imaging import composites, coordinates

SIDE = 80
BOX = np.array([25.0, 30.0, 54.0, 49.0])


@pytest.fixture
def picture():
    """A red box on a smooth grey ramp."""
    ramp = np.tile(np.linspace(60, 180, SIDE), (SIDE, 1))
    rgb = np.stack([ramp] * 3, axis=-1)
    rgb[30:50, 25:55] = [255, 0, 0]
    return np.rint(rgb).astype(np.uint8)


def test_the_background_goes_on_where_the_object_was(picture):
    filled = composites.fill_background(picture, composites.box_mask(BOX, SIDE))
    assert np.ptp(filled.astype(int), axis=-1).max() <= 6  # no red is left
    ramp = np.linspace(60, 180, SIDE)
    assert np.abs(filled[40, :, 0] - ramp).max() < 25
    np.testing.assert_array_equal(filled[:10], picture[:10])


@pytest.mark.parametrize("seed", range(6))
def test_the_object_is_moved_by_the_distance_and_stays_inside(seed):
    first, second = composites.placements(BOX, SIDE, 0.2, np.random.default_rng(seed))
    corners = BOX.reshape(2, 2)
    for placement in (first, second):
        placed = coordinates.apply(placement, corners)
        assert (placed > -0.5).all()
        assert (placed < SIDE - 0.5).all()
    assert np.linalg.norm(second[:, 2] - first[:, 2]) == pytest.approx(0.2 * SIDE)
    np.testing.assert_allclose(coordinates.apply(first, corners.mean(axis=0)), corners.mean(axis=0))


def test_a_large_object_is_made_smaller():
    box = np.array([4.0, 4.0, 75.0, 75.0])
    first, second = composites.placements(box, SIDE, 0.2, np.random.default_rng(0))
    assert 0.5 < first[0, 0] < 0.8
    placed = coordinates.apply(second, box.reshape(2, 2))
    assert placed.min() > -0.5
    assert placed.max() < SIDE - 0.5


def test_the_object_is_pasted_at_its_placement(picture):
    mask = composites.box_mask(BOX, SIDE)
    background = np.full_like(picture, 100)
    moved = composites.paste(picture, mask, background, coordinates.translation(0, 16))
    np.testing.assert_array_equal(moved[40 + 16, 40], [255, 0, 0])
    np.testing.assert_array_equal(moved[36, 40], [100, 100, 100])


def test_the_ellipse_covers_the_points():
    points = np.array([[30.0, 30.0], [50.0, 34.0], [40.0, 60.0]])
    mask, box = composites.ellipse_mask(points, SIDE)
    assert all(mask[int(y), int(x)] > 0.5 for x, y in points)
    assert mask[2, 2] < 0.01
    assert (box[:2] < points.min(axis=0)).all()
    assert (box[2:] > points.max(axis=0)).all()
