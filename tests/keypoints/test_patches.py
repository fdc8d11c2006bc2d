"""Descriptors of windows around any points: what lies there decides, and nothing else."""

import numpy as np
import pytest

from ray_kplm.keypoints.patches import PATCH_DIM, describe_patches


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8).repeat(2, 0).repeat(2, 1)


def test_each_point_has_a_descriptor_of_unit_norm_also_at_the_border(image):
    found = describe_patches(image, np.array([[0, 0], [96, 96], [191, 191]]), 192)
    assert found.shape == (3, PATCH_DIM)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert describe_patches(image, np.zeros((0, 2)), 192).shape == (0, PATCH_DIM)


def test_a_descriptor_follows_its_surroundings_when_they_move(image):
    moved = np.roll(image, (8, 8), axis=(0, 1))
    there, again, other = (
        describe_patches(image, np.array([[96, 96]]), 64),
        *(describe_patches(moved, np.array([xy]), 64) for xy in ([104, 104], [96, 96])),
    )
    assert there[0] @ again[0] > 0.999
    assert there[0] @ other[0] < 0.95
