"""SIFT and ORB with adaptive non-maximum suppression."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ray_kplm.keypoints.opencv import OpenCVDetector, adaptive_non_maximum_suppression
from ray_kplm.keypoints.source import inside_box

NAMES = ["sift", "orb"]
SIZE = 160


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """uint8 (160, 160, 3): textured all over, with strong contrast in one corner and weak elsewhere."""
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), 128, np.float32)
    for _ in range(260):
        x, y = rng.integers(0, SIZE, 2).tolist()
        strength = 110 if max(x, y) < SIZE // 2 else 35
        colour = (128 + rng.uniform(-strength, strength, 3)).tolist()
        w, h = rng.integers(4, 16, 2).tolist()
        cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.7), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_points_are_bounded_distinct_and_on_the_picture(name, picture):
    found = OpenCVDetector(name, 50)(picture)
    assert 40 <= len(found.xy) <= 50
    assert found.score.shape == (len(found.xy),)
    assert (found.xy >= 0).all()
    assert (found.xy <= SIZE - 1).all()
    assert len(np.unique(np.rint(found.xy), axis=0)) == len(found.xy)
    assert len(OpenCVDetector(name, 10)(picture).xy) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_points_are_spread_more_evenly_than_the_strongest(name, picture):
    every, chosen = OpenCVDetector(name, 100_000)(picture), OpenCVDetector(name, 50)(picture)
    assert len(every.xy) > 150
    strongest = every.xy[np.argsort(-every.score)[: len(chosen.xy)]]

    def cells(xy):
        return len(np.unique(xy // (SIZE / 6), axis=0))

    assert cells(chosen.xy) >= 1.4 * cells(strongest)
    assert cells(chosen.xy) >= 24


@pytest.mark.parametrize("name", NAMES)
def test_points_are_inside_the_box(name, picture):
    box = np.array([40, 60, 120, 110], np.float32)
    found = OpenCVDetector(name, 30)(picture, box)
    assert len(found.xy) > 10
    assert inside_box(found.xy, box).all()
    outside = OpenCVDetector(name, 30)(picture, np.array([-90.0, -90.0, -10.0, -10.0]))
    assert len(outside.xy) == 0


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_are_of_unit_length(name, picture):
    detector = OpenCVDetector(name, 30)
    found = detector(picture)
    assert found.descriptors.shape == (len(found.xy), detector.descriptor_dim)
    assert found.descriptors.dtype == found.xy.dtype == found.score.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)


def test_distance_of_orb_is_hamming_distance(picture):
    found = OpenCVDetector("orb", 30)(picture)
    bits = found.descriptors > 0
    hamming = (bits[:, None] != bits[None]).sum(-1)
    squared = ((found.descriptors[:, None] - found.descriptors[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared, 4 * hamming / 256, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_belong_to_their_points(name, picture):
    detector = OpenCVDetector(name, 30)
    upright, turned = detector(picture), detector(np.ascontiguousarray(np.rot90(picture, 2)))
    back = SIZE - 1 - turned.xy
    apart = np.linalg.norm(upright.xy[:, None] - back[None], axis=2)
    same = np.argwhere(apart < 1.5)
    assert len(same) >= 5
    gap = np.linalg.norm(upright.descriptors[:, None] - turned.descriptors[None], axis=2)
    assert np.median([gap[i, j] for i, j in same]) < 0.6 * np.median(gap)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 64, 3), (9, 40, 3)])
def test_a_blank_picture_has_no_points(name, shape):
    detector = OpenCVDetector(name, 30)
    found = detector(np.full(shape, 90, np.uint8))
    assert found.xy.shape == (0, 2)
    assert found.score.shape == (0,)
    assert found.descriptors.shape == (0, detector.descriptor_dim)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_picture_has_the_same_points(name, picture):
    detector = OpenCVDetector(name, 30)
    first = detector(picture)
    detector(picture[:, ::-1].copy())
    for again in (detector(picture), OpenCVDetector(name, 30)(picture.copy())):
        np.testing.assert_array_equal(again.xy, first.xy)
        np.testing.assert_array_equal(again.descriptors, first.descriptors)


def test_a_box_includes_its_border():
    xy = np.array([[0, 0], [10, 5], [10.1, 5], [3, -0.1]])
    assert inside_box(xy, np.array([0, 0, 10, 5])).tolist() == [True, True, False, False]
    assert inside_box(xy, None).all()


def test_suppression_keeps_the_points_farthest_from_stronger_ones():
    # Strong pair close together, weaker ones far away: the pair's weaker half goes first.
    xy = np.array([[0, 0], [1, 0], [50, 0], [0, 50]], np.float32)
    score = np.array([1.0, 0.8, 0.2, 0.1], np.float32)
    assert adaptive_non_maximum_suppression(xy, score, 3).tolist() == [0, 2, 3]
    assert adaptive_non_maximum_suppression(xy, score, 9).tolist() == [0, 1, 2, 3]


def test_a_hardly_stronger_neighbour_does_not_suppress():
    xy = np.array([[0, 0], [1, 0], [9, 0]], np.float32)
    assert adaptive_non_maximum_suppression(xy, np.array([1.0, 0.95, 0.5], np.float32), 2).tolist() == [0, 1]
    assert adaptive_non_maximum_suppression(xy, np.array([1.0, 0.85, 0.5], np.float32), 2).tolist() == [0, 2]
