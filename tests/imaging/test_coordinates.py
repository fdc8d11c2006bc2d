"""Coordinate frames: borders map to borders, and pictures move as the maps do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox


def blob(width: int, height: int, xy, sigma: float) -> np.ndarray:
    """uint8 (height, width, 3): a white Gaussian on black."""
    columns, rows = np.arange(width), np.arange(height)
    bell = np.exp(-0.5 * (((columns - xy[0]) / sigma) ** 2 + ((rows[:, None] - xy[1]) / sigma) ** 2))
    return np.rint(255 * bell)[..., None].repeat(3, axis=2).astype(np.uint8)


def centre_of_mass(picture: np.ndarray) -> np.ndarray:
    weight = picture.astype(np.float64).sum(axis=2)
    rows, columns = np.indices(weight.shape)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_scaling_maps_borders_to_borders(scale):
    width, height = 40, 24
    borders = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    expected = np.array([[-0.5, -0.5], [scale * width - 0.5, 2 * height - 0.5]])
    np.testing.assert_allclose(coordinates.apply(coordinates.scaling(scale, 2.0), borders), expected)
    np.testing.assert_allclose(coordinates.scaling(scale), coordinates.scaling(scale, scale))


def test_in_square_returns_shares_of_the_square_around_the_crop():
    xy = np.array([[[-0.5, -0.5], [99.5, 49.5]], [[19.5, 39.5], [np.nan, 0]]])
    shares = coordinates.in_square(xy, np.array([[100, 50], [40, 80]])[:, None])
    np.testing.assert_allclose(shares[0], [[0, 0.25], [1, 0.75]])
    np.testing.assert_allclose(shares[1, 0], [0.5, 0.5])
    assert np.isnan(shares[1, 1, 0])


@pytest.mark.parametrize("size", [(200, 100), (60, 90), (64, 64)])
def test_the_square_is_the_networks_input(size):
    xy = np.array([[3.0, 4.0], [50.0, 20.0]])
    in_input = coordinates.apply(coordinates.crop_to_input(*size, 64), xy)
    np.testing.assert_allclose(
        coordinates.in_square(xy, np.array(size)), coordinates.in_square(in_input, np.array([64, 64]))
    )
    np.testing.assert_allclose(coordinates.in_square(in_input, np.array([64, 64])), (in_input + 0.5) / 64)


def test_wide_crop_fills_the_width_and_is_centred():
    to_input = coordinates.crop_to_input(200, 100, 64)
    corners = coordinates.apply(to_input, np.array([[-0.5, -0.5], [199.5, 99.5]]))
    np.testing.assert_allclose(corners, [[-0.5, 15.5], [63.5, 47.5]])


def test_tall_crop_fills_the_height_and_is_centred():
    to_input = coordinates.crop_to_input(30, 40, 64)
    corners = coordinates.apply(to_input, np.array([[-0.5, -0.5], [29.5, 39.5]]))
    np.testing.assert_allclose(corners, [[7.5, -0.5], [55.5, 63.5]])


def test_a_crop_of_the_size_of_the_input_is_not_changed():
    np.testing.assert_allclose(coordinates.crop_to_input(64, 64, 64), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_compose_applies_the_first_map_first():
    turn, shift = np.array([[0.0, -2.0, 3.0], [1.0, 0.5, -1.0]]), coordinates.translation(5, -7)
    xy = np.random.default_rng(0).uniform(-50, 50, (4, 3, 2))
    both = coordinates.apply(coordinates.compose(shift, turn), xy)
    assert both.shape == xy.shape
    np.testing.assert_allclose(both, coordinates.apply(shift, coordinates.apply(turn, xy)))
    # Closed form: (x, y) -> (-2y + 3, x + y/2 - 1) -> + (5, -7).
    np.testing.assert_allclose(both[..., 0], -2 * xy[..., 1] + 8)
    np.testing.assert_allclose(both[..., 1], xy[..., 0] + 0.5 * xy[..., 1] - 8)


def test_invert_returns_the_inverse_map():
    affine = np.array([[0.3, -2.0, 3.0], [1.0, 0.5, -1.0]])
    identity = [[1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(coordinates.compose(coordinates.invert(affine), affine), identity, atol=1e-12)
    np.testing.assert_allclose(coordinates.compose(affine, coordinates.invert(affine)), identity, atol=1e-12)


def test_a_cell_is_the_centre_of_its_four_pixels():
    pixels = np.arange(32).reshape(8, 4)
    np.testing.assert_allclose(coordinates.heatmap_to_input(np.arange(8.0)), pixels.mean(axis=1))
    # Borders map to borders here too.
    np.testing.assert_allclose(coordinates.input_to_heatmap(np.array([-0.5, 31.5])), [-0.5, 7.5])


@pytest.mark.parametrize("of", [np.asarray, torch.as_tensor])
def test_heatmap_and_input_are_inverse_on_arrays_and_tensors(of):
    xy = of(np.random.default_rng(0).uniform(0, 63, (5, 2)))
    assert type(coordinates.heatmap_to_input(xy)) is type(xy)
    np.testing.assert_allclose(coordinates.input_to_heatmap(coordinates.heatmap_to_input(xy)), xy)


@pytest.mark.parametrize("size", [64, 256])
def test_mirroring_is_the_same_in_input_and_heatmap(size):
    xy = np.random.default_rng(0).uniform(0, size - 1, (100, 2))
    by_input = coordinates.input_to_heatmap(coordinates.mirrored(xy, size))
    by_heatmap = coordinates.mirrored(coordinates.input_to_heatmap(xy), size // 4)
    np.testing.assert_allclose(by_input, by_heatmap, atol=1e-12)
    np.testing.assert_allclose(by_input[:, 0], size / 4 - 1 - (xy[:, 0] - 1.5) / 4)


def test_mirroring_matches_a_mirrored_picture_and_leaves_its_argument():
    picture = np.zeros((4, 7), int)
    picture[2, 1] = 1
    xy = np.array([[1, 2]])
    x, y = coordinates.mirrored(xy, 7)[0]
    assert picture[:, ::-1][y, x] == 1
    np.testing.assert_array_equal(xy, [[1, 2]])


@pytest.mark.parametrize(
    ("width", "height"), [(20, 30), (31, 17), (40, 64), (65, 50), (100, 60), (187, 301), (301, 187), (500, 500)]
)
def test_a_dot_is_where_the_map_puts_it(width, height):
    size = 64
    dot = np.array([0.37 * width, 0.61 * height])
    crop = blob(width, height, dot, sigma=max(1.5, 1.5 * max(width, height) / size))
    view, to_input = letterbox(crop, size)
    assert view.shape == (size, size, 3)
    np.testing.assert_array_equal(to_input, coordinates.crop_to_input(width, height, size))
    error = np.linalg.norm(centre_of_mass(view) - coordinates.apply(to_input, dot))
    assert error < 0.1  # half a pixel is the mistake that is looked for


def test_letterbox_repeats_the_border():
    crop = np.zeros((10, 40, 3), np.uint8)
    crop[0], crop[-1] = 50, 200
    view, _ = letterbox(crop, 40)
    assert (view[:15] == 50).all()
    assert (view[26:] == 200).all()


def test_mirroring_is_the_map_of_the_mirrored_points():
    xy = np.random.default_rng(0).uniform(-5, 50, (4, 2))
    np.testing.assert_allclose(coordinates.apply(coordinates.mirroring(40), xy), coordinates.mirrored(xy, 40))
    np.testing.assert_allclose(
        coordinates.compose(coordinates.mirroring(40), coordinates.mirroring(40)), [[1, 0, 0], [0, 1, 0]]
    )
