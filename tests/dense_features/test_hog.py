"""HOG against closed forms, and its cost."""

from __future__ import annotations

import time

import cv2
import numpy as np

from ray_kplm.dense_features.hog import Hog


def stripes(angle: float, size: int = 64) -> np.ndarray:
    """An image whose grey rises along a direction, degrees."""
    y, x = np.mgrid[0:size, 0:size]
    ramp = np.cos(np.radians(angle)) * x + np.sin(np.radians(angle)) * y
    return np.repeat((128 + 1.4 * (ramp - ramp.mean()))[..., None], 3, axis=2).astype(np.uint8)


def test_an_edge_is_in_the_bin_of_its_direction_modulo_half_a_circle():
    for angle in (10, 50, 90, 130, 170, 190, 230):
        maps = Hog()(stripes(angle)[None])
        assert maps.shape == (1, 8, 8, 9)
        assert maps.dtype == np.float32
        assert (maps[0, 1:-1, 1:-1].argmax(-1) == int(angle % 180 / 20)).all()


def test_a_mark_shows_in_its_own_cell_alone():
    image = np.full((64, 80, 3), 100, np.uint8)
    image[11:13, 35:37] = 200  # row 1, column 4
    norms = np.linalg.norm(Hog()(image[None])[0], axis=-1)
    assert norms.shape == (8, 10)
    assert norms[1, 4] > 0.5
    assert (np.delete(norms.ravel(), 14) < 1e-2).all()


def test_a_uniform_image_has_no_gradient():
    np.testing.assert_array_equal(Hog()(np.full((2, 64, 64, 3), 77, np.uint8)), 0)


def test_a_cell_has_at_most_unit_norm_and_faint_cells_less():
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    strong = np.linalg.norm(Hog()(image), axis=-1)
    faint = np.linalg.norm(Hog()((image // 50 + 100).astype(np.uint8)), axis=-1)
    assert (strong < 1).all()
    assert strong.min() > faint.max()


def test_other_sizes_are_resized_to_whole_cells_of_8_pixels():
    image = cv2.resize(stripes(50), (81, 60))
    assert Hog()(image[None]).shape == (1, 8, 10, 9)
    assert Hog()(image[None, :3, :3]).shape == (1, 1, 1, 9)


def test_an_image_of_64_pixels_takes_less_than_a_millisecond():
    images = np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3), dtype=np.uint8)
    hog = Hog()
    hog(images)
    times = []
    for _ in range(5):
        start = time.thread_time()
        hog(images)
        times.append(time.thread_time() - start)
    assert min(times) / len(images) < 1e-3
