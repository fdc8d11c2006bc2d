"""The facing rule as tensor operations: grey levels, histograms and boxes of OpenCV and NumPy, and the facings of the rule."""

import cv2
import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.correspondence.facing import FacingTemplate
from ray_kplm.dense_features import build_features, describe_images
from ray_kplm.dense_features.hog import Hog
from ray_kplm.detectors.graph_crops import cut_and_resize
from ray_kplm.detectors.graph_facing import GraphFacing, hog
from ray_kplm.imaging.synthetic.category import render
from ray_kplm.methods.facing import FacingRule, cut

SIDE = Hog.input_size
CONFIG = load_config(None, ["network.image_size=64", "network.depth=2"])


def pictures(size: int) -> np.ndarray:
    """Animals, blocks of colour, noise, and gradients that are level or upright: uint8 (12, size, size, 3)."""
    random = np.random.default_rng(1)
    blocks = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    halves = np.zeros((size, size, 3), np.uint8)
    halves[:, size // 2 :] = 255
    drawn = [
        *(render(7, number, 64, kind="profile").image for number in range(6)),
        cv2.resize(blocks, (size, size), interpolation=cv2.INTER_NEAREST),
        random.integers(0, 256, (size, size, 3), dtype=np.uint8),
        halves, halves[:, ::-1], halves.transpose(1, 0, 2), np.zeros_like(halves),
    ]  # fmt: skip
    return np.stack([cv2.resize(np.ascontiguousarray(picture), (size, size)) for picture in drawn])


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


BOXES = [
    [0, 0, 1e4, 1e4], [-20, 3, -8, 50], [0.5, 1.5, 1.5, 2.5], [3, 900, 40, 950], [5, 7, 6, 8], [0, 0, 191, 191],
    [10, 10, 10, 50], [-9, -9, -5, -5], [2.5, 3.5, 40.5, 60.5], [-7, -3, 55, 41], [1, 2, 30, 120], [20, 1, 130, 140],
]  # fmt: skip


@pytest.mark.parametrize("size", [64, 96, 150, 256])
def test_boxes_are_cut_out_and_resized_to_the_same_grey_levels(size):
    images, boxes = pictures(size), np.float32(BOXES)
    found = cut_and_resize(tensor(images), torch.from_numpy(boxes), SIDE).permute(0, 2, 3, 1).numpy()
    for image, box, one in zip(images, boxes, found, strict=True):
        part = cut(image, box)
        way = cv2.INTER_AREA if min(part.shape[:2]) > SIDE else cv2.INTER_LINEAR
        expected = cv2.resize(part, (SIDE, SIDE), interpolation=way).astype(int)
        assert (one != expected).mean() <= 1e-3  # single sums lie halfway between two levels
        assert np.abs(one - expected).max() <= 1


def test_the_histograms_are_the_same():
    images = pictures(SIDE)
    np.testing.assert_allclose(hog(tensor(images)).numpy(), Hog()(images), atol=1e-3)


@pytest.fixture(scope="module")
def rule() -> FacingRule:
    """A rule of rendered animals with a random direction added, so that no facing is certain."""
    model, images = build_features(CONFIG), list(pictures(64)[:6])
    plain, other = (describe_images(model, images, mirrored=way) for way in (False, True))
    direction = (plain - other)[0] + np.random.default_rng(0).normal(size=plain.shape[1]).astype(np.float32)
    template = FacingTemplate((plain.mean(axis=0) + other.mean(axis=0)) / 2, direction, 0.5)
    return FacingRule(CONFIG, template, np.array([0.1, 0.15, 0.9, 0.8], np.float32))


def test_facings_are_those_of_the_rule_with_and_without_boxes(rule):
    images, random = pictures(64), np.random.default_rng(2)
    points = random.uniform(5, 58, (len(images), 9, 2)).astype(np.float32)
    boxes = np.concatenate([random.uniform(0, 20, (12, 2)), random.uniform(40, 63, (12, 2))], axis=1).astype(np.float32)
    boxes[::2] = np.nan
    graph = GraphFacing(rule)
    for given in (boxes, np.full_like(boxes, np.nan)):
        found = graph(tensor(images), torch.from_numpy(given), torch.from_numpy(points)).numpy()
        expected = rule(images, given, points)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert {-1, 1} <= set(np.sign(expected))
