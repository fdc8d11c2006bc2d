"""Values of maps at points, pooling, and descriptors of whole images."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.config import load_config
from ray_kplm.dense_features import build_features, describe_images, feature_options, sample_maps
from ray_kplm.dense_features.feature_map import GRID, normalise, pool_maps
from ray_kplm.dense_features.hog import Hog


class Blocks:
    """In place of a model: the mean colour of blocks of 4 pixels, and what it saw."""

    input_size = 96

    def __call__(self, images):
        self.seen = images
        count, height, width, _ = images.shape
        return images.reshape(count, height // 4, 4, width // 4, 4, 3).mean((2, 4)).astype(np.float32)


def test_a_map_that_is_linear_in_position_is_sampled_exactly():
    size = (40, 24)
    y, x = np.mgrid[0:6, 0:10] * 4 + 1.5  # the centres of cells of 4 pixels
    maps = np.stack([np.stack([x, y], axis=-1), np.stack([y, -x], axis=-1)]).astype(np.float32)
    xy = np.random.default_rng(0).uniform([1.5, 1.5], [37.5, 21.5], (2, 20, 2))
    sampled = sample_maps(maps, xy, size)
    np.testing.assert_allclose(sampled[0], xy[0], atol=1e-4)
    np.testing.assert_allclose(sampled[1], np.stack([xy[1, :, 1], -xy[1, :, 0]], axis=-1), atol=1e-4)


def test_points_beyond_the_outer_centres_get_the_outer_cells():
    maps = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    sampled = sample_maps(maps, np.array([[[-5.0, -5.0], [99.0, 99.0], [99.0, -5.0]]]), (30, 20))
    np.testing.assert_array_equal(sampled[0, :, 0], [0, 5, 2])
    assert sample_maps(maps[:, :1, :1], np.array([[[3.0, 4.0]]]), (30, 20))[0, 0, 0] == 0


def test_pooling_keeps_the_mean_and_counts_cells_by_their_overlap():
    maps = np.array([0, 3, 6], np.float32).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(pool_maps(maps, 2).ravel(), [1, 5])  # 1.5 cells each
    maps = np.random.default_rng(0).random((2, 16, 13, 5), dtype=np.float32)
    pooled = pool_maps(maps, 8)
    assert pooled.shape == (2, 8, 8, 5)
    np.testing.assert_allclose(pooled.mean((1, 2)), maps.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(pool_maps(maps, 20), maps, atol=1e-5)


def test_a_descriptor_is_the_flattened_map_whatever_the_size_of_the_crop():
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((96, 96), (100, 31), (20, 90))] * 20
    model = Blocks()
    descriptors = describe_images(model, crops)
    assert descriptors.shape == (60, GRID * GRID * 3)
    assert model.seen.shape[1:] == (96, 96, 3)
    np.testing.assert_allclose(
        descriptors[0].reshape(GRID, GRID, 3), crops[0].reshape(GRID, 8, GRID, 8, 3).mean((1, 3)), atol=1e-3
    )
    np.testing.assert_array_equal(descriptors[:3], describe_images(model, crops[:3]))  # alone and in a batch
    assert describe_images(model, []).shape[0] == 0


@pytest.mark.parametrize("model", [Blocks(), Hog()])
def test_the_descriptor_of_a_mirror_image_is_that_of_the_mirrored_crop(model):
    crop = np.random.default_rng(1).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    mirrored = describe_images(model, [crop], mirrored=True)
    np.testing.assert_allclose(mirrored, describe_images(model, [crop[:, ::-1].copy()]), atol=0.05)
    assert np.abs(mirrored - describe_images(model, [crop])).max() > 0.1


def test_the_mirror_image_of_a_hog_map_is_not_the_map_of_the_mirror_image():
    """So the model has to run on the mirror image."""
    y, x = np.mgrid[0:64, 0:64]
    crop = np.repeat((3 * x + 0.6 * y)[..., None], 3, axis=2).astype(np.uint8)
    map_, mirrored = Hog()(np.stack([crop, crop[:, ::-1]]))
    assert (mirrored[4, 4].argmax(), map_[4, 3].argmax()) == (8, 0)


def test_normalised_maps_have_unit_norm_and_zero_stays_zero():
    maps = np.array([[3, 4], [0, 0]], np.float32)
    np.testing.assert_allclose(normalise(maps), [[0.6, 0.8], [0, 0]])


def test_hog_is_the_default_and_needs_no_weights():
    config = load_config(None)
    assert isinstance(build_features(config), Hog)
    assert feature_options(config) == {"features": "hog"}


def test_weights_belong_to_the_options_only_where_they_are_read():
    weights = "keypoints.weights=a.pth"
    assert feature_options(load_config(None, [weights])) == {"features": "hog"}
    assert feature_options(load_config(None, [weights, "features=aliked"]))["keypoints.weights"] == "a.pth"
