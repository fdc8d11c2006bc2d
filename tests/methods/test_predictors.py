"""Predictors: landmarks, and measures of their quality."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.correspondence.assignment import on_grid
from ray_kplm.imaging import coordinates
from ray_kplm.methods.cluster_predictor import ClusterPredictor, assign_unique
from ray_kplm.methods.predicted import Observed, Predicted
from ray_kplm.methods.predictors import LandmarkPredictor, OneWayPredictor
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork, LandmarkNetwork
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.regressor import PointRegressor
from ray_kplm.schemas import NONE

CONFIG = load_config(
    None,
    ["network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=8"],
)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
        ),
    ]
)
def placement(request):
    return Placement(torch.device(request.param), None, False)


def test_measures_of_cluster_landmarks_are_given_where_they_are_detected(placement):
    """The network has random weights. The last of the four centroids is far from all descriptors."""
    torch.manual_seed(0)
    centroids = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    centroids[3] = 3
    predictor = ClusterPredictor(
        CONFIG,
        KeypointNetwork(CONFIG.network).state_dict(),
        assign_unique(centroids),
        on_grid(centroids),
        0.0,
        placement,
    )
    xy, confidence, *_ = predictor(IMAGES)
    seen = predictor.observe(IMAGES)
    np.testing.assert_array_equal(seen.xy, xy)
    np.testing.assert_array_equal(seen.confidence, confidence)
    detected = np.isfinite(xy).all(axis=-1)
    assert detected.any()
    assert not detected[:, 3].any()
    np.testing.assert_array_equal(confidence > 0, detected)
    np.testing.assert_array_equal(np.isfinite(seen.sharpness), detected)
    np.testing.assert_array_equal(np.isfinite(seen.separation), detected)
    assert (seen.separation[detected] >= 0).all()  # the nearest centroid is no farther than any other
    assert (seen.sharpness[detected] >= 0).all()


@pytest.mark.parametrize("flip", [False, True])
def test_measures_of_channels_come_with_the_predicted_landmarks(flip, placement):
    torch.manual_seed(0)
    flip_map = np.array([1, 0, 2, NONE], np.int16)
    predictor = LandmarkPredictor(
        CONFIG, LandmarkNetwork(CONFIG.network, 4).state_dict(), flip_map, placement, flip=flip
    )
    xy, confidence, *_ = predictor(IMAGES)
    seen = predictor.observe(IMAGES)
    np.testing.assert_array_equal(seen.xy, xy)
    np.testing.assert_array_equal(seen.confidence, confidence)
    assert seen.sharpness.shape == (3, 4)
    assert ((seen.sharpness >= 0) & (seen.sharpness <= 1)).all()
    assert seen.separation is None


@pytest.mark.parametrize("sigma", [0.75, 2.0])
def test_channels_are_decoded_with_the_sigma_of_their_targets(sigma, placement, monkeypatch):
    config = replace(CONFIG, stage2=replace(CONFIG.stage2, heatmap_sigma=sigma))
    predictor = LandmarkPredictor(
        config, LandmarkNetwork(CONFIG.network, 4).state_dict(), np.arange(4, dtype=np.int16), placement, flip=False
    )
    side = CONFIG.network.image_size // 4
    xy = side / 2 + torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0), device="cpu")
    maps = heatmaps.render(xy, torch.ones(3, 4), side, sigma).to(placement.device)
    monkeypatch.setattr(predictor, "maps", lambda images: (maps, None))
    found = predictor(IMAGES).xy
    np.testing.assert_allclose(
        found, coordinates.heatmap_to_input(xy.numpy()), atol=0.25
    )  # pixels: a sixteenth of a cell
    np.testing.assert_array_equal(predictor.observe(IMAGES).xy, found)


class Ramp:
    """Predicts the brightest pixel, and a point a third of the way to the right border; with a confidence for each image."""

    def __call__(self, images, boxes=None):
        grey = images.astype(int).sum(axis=3).reshape(len(images), -1)
        y, x = np.divmod(grey.argmax(axis=1), images.shape[2])
        second = np.stack([x + (images.shape[2] - 1 - x) / 3, y], axis=1)
        xy = np.stack([np.stack([x, y], axis=1), second], axis=1).astype(np.float32)
        xy[grey.max(axis=1) < 700, 1] = np.nan  # not detected
        confidence = np.stack([grey.max(axis=1), grey.sum(axis=1)], axis=1).astype(np.float32)
        return Predicted(xy, confidence, confidence / 1000)

    def observe(self, images):
        xy, confidence, *_ = self(images)
        return Observed(xy, confidence, confidence / 2, None)


class BrighterSide:
    """A rule: an object faces the side that is brighter. It notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, images, boxes=None, points=None):
        self.asked.append((boxes, points))
        left, right = (half.mean(axis=(1, 2, 3)) for half in np.split(images.astype(np.float64), 2, axis=2))
        return ((right - left) / np.maximum(right + left, 1)).astype(np.float32)


@pytest.mark.parametrize("boxes", [None, np.tile(np.float32([4, 4, 60, 60]), (3, 1))])
def test_landmarks_of_an_image_and_of_its_mirror_image_are_mirror_images(boxes):
    predictor = OneWayPredictor(Ramp(), BrighterSide())
    mirrored = np.ascontiguousarray(IMAGES[:, :, ::-1])
    other_boxes = None if boxes is None else boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + np.float32([63, 0, 63, 0])
    (xy, confidence, _, facing), (other, other_confidence, _, other_facing) = (
        predictor(IMAGES, boxes),
        predictor(mirrored, other_boxes),
    )
    np.testing.assert_array_equal(coordinates.mirrored(other, 64), xy)
    np.testing.assert_array_equal(other_confidence, confidence)
    np.testing.assert_array_equal(other_facing, -facing)
    seen, other_seen = predictor.observe(IMAGES), predictor.observe(mirrored)
    np.testing.assert_array_equal(coordinates.mirrored(other_seen.xy, 64), seen.xy)
    np.testing.assert_array_equal(other_seen.sharpness, seen.sharpness)


def test_only_images_that_face_the_other_way_are_turned():
    images = np.zeros((2, 64, 64, 3), np.uint8)
    images[0, 20, 50] = images[1, 20, 13] = 255
    xy, _, _, facing = OneWayPredictor(Ramp(), BrighterSide())(images)
    assert (facing > 0).tolist() == [True, False]
    assert xy[0, 0].tolist() == [50, 20]
    assert xy[1, 0].tolist() == [13, 20]
    assert xy[0, 1, 0] == pytest.approx(50 + 13 / 3)
    assert xy[1, 1, 0] == pytest.approx(13 - 13 / 3)  # the mirror image has it a third of the way to the right


def test_the_object_is_looked_for_at_the_landmarks_of_both_ways_where_a_box_is_unknown():
    rule, inner = BrighterSide(), Ramp()
    boxes = np.float32([[0, 0, 63, 63], [np.nan] * 4, [0, 0, 63, 63]])
    OneWayPredictor(inner, rule)(IMAGES, boxes)
    ((_, points),) = rule.asked
    assert points.shape == (3, 4, 2)
    np.testing.assert_array_equal(points[:, :2], inner(IMAGES)[0])
    mirrored = np.ascontiguousarray(IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(points[:, 2:], coordinates.mirrored(inner(mirrored)[0], 64))
    OneWayPredictor(inner, rule)(IMAGES, boxes[[0, 2, 0]])
    assert rule.asked[-1][1] is None


class Counting(Ramp):
    """It counts how often it is run."""

    runs = 0

    def __call__(self, images, boxes=None):
        self.runs += 1
        return super().__call__(images, boxes)


def test_the_network_runs_once_where_boxes_are_known_and_twice_where_not():
    for boxes, runs in ((None, 2), (np.tile(np.float32([4, 4, 60, 60]), (3, 1)), 1)):
        inner = Counting()
        OneWayPredictor(inner, BrighterSide())(IMAGES, boxes)
        assert inner.runs == runs


def test_points_are_made_in_the_turned_image_and_then_turned_back():
    images = np.zeros((2, 64, 64, 3), np.uint8)
    images[0, 20, 50] = images[1, 20, 13] = 255
    regressor = PointRegressor(np.zeros(4), np.array([0.25, 0.5]), np.zeros((4, 2)))  # always at a quarter of the width
    points = PointSet(Layout("", ("p",), (0,)), regressor, np.full((1, 2), 0.5, np.float32))
    rule, predictor = BrighterSide(), OneWayPredictor(Ramp(), BrighterSide(), points)
    found, seen = predictor(images), predictor.observe(images)
    assert found.xy.tolist() == [[[16, 32]], [[63 - 16, 32]]]
    np.testing.assert_array_equal(found.facing, rule(images))
    np.testing.assert_array_equal(seen.xy, found.xy)
    np.testing.assert_allclose(found.confidence, Ramp()(images).confidence.mean(1, keepdims=True))
