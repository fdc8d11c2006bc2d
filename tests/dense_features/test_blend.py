"""Frozen descriptors beside learnt ones, against closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ray_kplm.dense_features.blend import Projection, blend, describe_keypoints, frozen_share
from ray_kplm.dense_features.feature_map import normalise
from ray_kplm.dense_features.hog import Hog

RNG = np.random.default_rng(0)


def unit(count: int, width: int) -> np.ndarray:
    return normalise(RNG.standard_normal((count, width)).astype(np.float32))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_cosine_of_blended_descriptors_is_the_weighted_mean_of_both(share):
    learnt, frozen = unit(10, 8), unit(10, 5)
    blended = blend(learnt.astype(np.float16), frozen, share)
    assert blended.shape == (10, 13)
    expected = (1 - share) * learnt @ learnt.T + share * frozen @ frozen.T
    np.testing.assert_allclose(blended @ blended.T, expected, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(blended, axis=1), 1, atol=1e-3)


def test_the_share_falls_linearly_from_the_warm_up_to_nothing():
    assert [frozen_share(round, 4, 0.8) for round in range(6)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0, 0])
    assert frozen_share(0, 0, 0.8) == 0


def test_a_projection_keeps_the_directions_of_largest_variance():
    axes = np.linalg.qr(RNG.standard_normal((6, 6)))[0]
    sample = (RNG.standard_normal((4000, 6)) * [5, 3, 0.1, 0.1, 0.1, 0.1]) @ axes.T + 7
    projection = Projection.fit(sample.astype(np.float32), 2)
    np.testing.assert_allclose(np.abs(projection.components.T @ axes[:, :2]), np.eye(2), atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(projection(sample.astype(np.float32)), axis=1), 1, atol=1e-5)
    assert Projection.fit(sample.astype(np.float32), 50).components.shape == (6, 6)


def test_keypoints_of_the_mirror_image_are_described_at_the_mirrored_places():
    images = RNG.integers(0, 255, (2, 64, 80, 3), dtype=np.uint8)
    xy = RNG.uniform(5, 60, (2, 7, 2))
    mirrored_xy = np.stack([79 - xy[..., 0], xy[..., 1]], axis=-1)
    plain, mirrored = describe_keypoints(Hog(), images, xy)
    again, back = describe_keypoints(Hog(), images[:, :, ::-1].copy(), mirrored_xy)
    assert plain.shape == (2, 7, 9)
    np.testing.assert_allclose(again, mirrored, atol=1e-5)
    np.testing.assert_allclose(back, plain, atol=1e-5)
    assert np.abs(plain - mirrored).max() > 0.1


def test_images_smaller_than_the_models_input_are_enlarged():
    images = RNG.integers(0, 255, (2, 16, 24, 3), dtype=np.uint8)
    large = np.stack([cv2.resize(image, (96, 64), interpolation=cv2.INTER_LINEAR) for image in images])
    xy = RNG.uniform(0, 15, (2, 5, 2))
    plain, mirrored = describe_keypoints(Hog(), images, xy)
    in_large = (xy + 0.5) * [96 / 24, 64 / 16] - 0.5
    expected = describe_keypoints(Hog(), large, in_large)
    np.testing.assert_allclose(plain, expected[0], atol=1e-5)
    np.testing.assert_allclose(mirrored, expected[1], atol=1e-5)
