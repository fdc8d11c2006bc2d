"""Extraction of keypoints: calibrated thresholds, descriptors, known points, data distillation."""

import copy

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from ray_kplm.config import ComputeConfig, DetectionConfig, NetworkConfig
from ray_kplm.imaging import coordinates
from ray_kplm.methods.extractor import (
    DISTILLING_VIEWS,
    DescriptorExtractor,
    Pending,
    PointExtractor,
    _append_known,
    begin_keypoints,
    calibrated_threshold,
    detect_keypoints,
    peak_scores,
)
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork

PLACEMENT = Placement.choose(ComputeConfig(precision="fp32"), torch.device("cpu"))
SIDE = 16


def above(scores, threshold):
    return int((scores > threshold).sum())


@pytest.mark.parametrize("points", [1.0, 2.5, 20.0])
def test_the_threshold_keeps_the_configured_number_of_points(points):
    scores = np.random.default_rng(0).random(40 * 25).astype(np.float32)
    threshold = calibrated_threshold(scores, 40, points)
    assert above(scores, threshold) == round(40 * points)


def test_scores_far_below_any_fixed_threshold_are_still_ranked():
    scores = np.linspace(1e-4, 0.04, 1000, dtype=np.float32)  # a small network peaks below 0.15 everywhere
    assert above(scores, 0.15) == 0
    assert above(scores, calibrated_threshold(scores, 100, 3.0)) == 300


def test_all_maxima_are_kept_if_they_are_too_few():
    scores = np.array([0.2, 0.1], np.float32)
    assert above(scores, calibrated_threshold(scores, 10, 3.0)) == 2


class Bright(nn.Module):
    """A network that detects bright cells; the descriptor is the cell's colour."""

    def forward(self, image):
        cells = nn.functional.avg_pool2d(image, 4)
        return (cells.mean(1) - 0.4) * 20, cells * 2 - 0.9


def picture(cells):
    image = np.zeros((64, 64, 3), np.uint8)
    for (x, y), colour in cells.items():
        image[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = colour
    return image


def test_keypoints_have_descriptors_of_the_image_and_of_its_mirror_image():
    cells = {(3, 5): (255, 200, 40), (11, 8): (90, 255, 255)}
    found = detect_keypoints(Bright(), PLACEMENT, picture(cells)[None], 0.3, 1, 10)[0]
    assert len(found.xy) == 2
    order = np.argsort(found.xy[:, 0])
    np.testing.assert_allclose(found.xy[order], [[4 * 3 + 1.5, 4 * 5 + 1.5], [4 * 11 + 1.5, 4 * 8 + 1.5]], atol=1e-4)
    norm = np.linalg.norm(found.descriptors.astype(np.float32), axis=1)
    np.testing.assert_allclose(norm, 1, atol=2e-3)
    # This network is symmetric: the descriptors of the mirror image are equal.
    np.testing.assert_allclose(found.descriptors, found.descriptors_flipped, atol=2e-3)
    assert np.abs(found.descriptors[0].astype(np.float32) - found.descriptors[1].astype(np.float32)).max() > 0.2


def test_a_black_image_has_no_keypoints():
    both = np.stack([picture({}), picture({(2, 2): (255, 255, 255)})])
    found = detect_keypoints(Bright(), PLACEMENT, both, 0.3, 1, 10)
    assert [len(k.xy) for k in found] == [0, 1]
    none = detect_keypoints(Bright(), PLACEMENT, both[:1], 0.3, 1, 10)
    assert none[0].descriptors.shape == (0, 3)


def test_peak_scores_are_those_of_all_maxima():
    scores = peak_scores(Bright(), PLACEMENT, picture({(3, 5): (255, 255, 255), (9, 9): (180, 180, 180)})[None], 2, 100)
    assert np.sort(scores)[-1] == pytest.approx(1 / (1 + np.exp(-12)), abs=1e-4)
    assert (scores > 0.9).sum() == 2


def test_known_points_are_described_where_no_new_one_is_near():
    cells = {(3, 5): (255, 200, 40), (11, 8): (90, 255, 255)}
    known = np.float32([[4 * 4 + 1.5, 4 * 6 + 1.5], [4 * 8 + 1.5, 4 * 2 + 1.5]])  # a cell from a peak; on its own
    images = np.stack([picture(cells), picture({})])
    found, empty = begin_keypoints(Bright(), PLACEMENT, images, 0.3, 1, 10, [known, known[:0]]).keypoints()
    assert len(found.xy) == 3
    np.testing.assert_allclose(found.xy[2], known[1], atol=1e-4)
    assert found.score[2] < 0.3
    np.testing.assert_allclose(found.descriptors[2].astype(np.float32), -np.ones(3) / np.sqrt(3), atol=2e-3)
    assert len(empty.xy) == 0
    alone = detect_keypoints(Bright(), PLACEMENT, images, 0.3, 1, 10)[0]
    np.testing.assert_array_equal(alone.xy, found.xy[:2])


class BrightAlone(nn.Module):
    def forward(self, image):
        return Bright()(image)[0]


class BrightOnTheLeft(nn.Module):
    """A network that detects nothing in the right half, so that its detections depend on the view."""

    def forward(self, image):
        logits = Bright()(image)[0]
        logits[..., logits.shape[-1] // 2 :] = -20
        return logits


def extractor(network, views):
    return PointExtractor(network, PLACEMENT, DetectionConfig(nms_radius=1, limit=10), views)


def test_each_view_is_mapped_back_to_the_image():
    image = picture(
        {(6, 9): (255, 255, 255), (7, 9): (255, 255, 255), (6, 10): (255, 255, 255), (7, 10): (255, 255, 255)}
    )
    for views in (DISTILLING_VIEWS, *[(view,) for view in DISTILLING_VIEWS]):
        heat = extractor(BrightAlone(), views).heat(image[None])[0].numpy()
        rows, columns = np.indices(heat.shape)
        centre = np.array([(heat * columns).sum(), (heat * rows).sum()]) / heat.sum()
        np.testing.assert_allclose(centre, [6.5, 9.5], atol=0.3)


def test_a_point_that_shows_in_some_views_only_has_a_lower_score():
    image = picture({(3, 8): (255, 255, 255)})[None]
    plain, mirror = DISTILLING_VIEWS[:2]
    assert extractor(BrightOnTheLeft(), (plain,)).scores(image).max() > 0.9
    assert extractor(BrightOnTheLeft(), (plain, mirror)).scores(image).max() < 0.6
    assert len(extractor(BrightOnTheLeft(), (plain,)).begin(image, 0.7).keypoints()[0].xy) == 1
    assert len(extractor(BrightOnTheLeft(), (plain, mirror)).begin(image, 0.7).keypoints()[0].xy) == 0
    assert extractor(BrightAlone(), (plain,)).begin(image, 0.7).keypoints()[0].descriptors.shape == (1, 0)


BOXED = {(3, 5): (255, 200, 40), (11, 8): (90, 255, 255)}
LEFT, NO_BOX = np.float32([0, 0, 30, 63]), np.full(4, np.nan, np.float32)


def test_keypoints_outside_a_box_are_left_out_and_all_are_kept_without_one():
    found = detect_keypoints(Bright(), PLACEMENT, picture(BOXED)[None], 0.3, 1, 10)[0]
    inside = found.inside(LEFT)
    assert inside.xy.tolist() == [[13.5, 21.5]]
    kept = found.xy[:, 0] < 30
    for name in ("score", "descriptors", "descriptors_flipped"):
        np.testing.assert_array_equal(getattr(inside, name), getattr(found, name)[kept])
    np.testing.assert_array_equal(found.inside(NO_BOX).xy, found.xy)
    on_border = np.float32([13.5, 21.5, 13.5, 21.5])
    assert len(found.inside(on_border).xy) == 1


@pytest.mark.parametrize("described", [True, False])
def test_the_heights_of_maxima_outside_the_boxes_do_not_count(described):
    images = np.stack([picture(BOXED)] * 3)
    options = DetectionConfig(nms_radius=1, limit=10)
    make = DescriptorExtractor if described else PointExtractor
    subject = make(Bright() if described else BrightAlone(), PLACEMENT, options)
    high = [(subject.scores(images[:1], box if box is None else box[None]) > 0.3).sum() for box in (None, LEFT, NO_BOX)]
    assert high == [2, 1, 2]
    together = subject.scores(images, np.stack([LEFT, NO_BOX, LEFT]))
    assert (together > 0.3).sum() == 4
    assert len(subject.scores(images)) > len(together)


# -- on an accelerator


def test_finding_keypoints_asks_a_device_for_no_value():
    """Tensors on `meta` have none: reading one raises."""
    heat = torch.zeros(3, SIDE, SIDE, device="meta")
    found = heatmaps.peaks(heat, 0.3, 1, 10)
    assert found.xy_BN2.shape == (3, 10, 2)  # padded to the limit
    known = [np.zeros((n, 2), np.float32) for n in (0, 4, 1)]
    assert _append_known(found, heat, known, 1).valid_BN.shape == (3, 14)
    assert heatmaps.sample(torch.zeros(3, 5, SIDE, SIDE, device="meta"), found.xy_BN2).shape == (3, 10, 5)


def test_padding_is_left_out_and_all_arrives_as_it_was():
    rng = np.random.default_rng(0)
    valid = torch.tensor([[True, True, False, False], [False] * 4, [True] * 4])
    peaks = heatmaps.Peaks(torch.from_numpy(rng.random((3, 4, 2), np.float32)), torch.rand(3, 4), valid)
    plain, flipped = torch.rand(3, 4, 5).half(), torch.rand(3, 4, 5).half()
    found = Pending(peaks, plain, flipped).keypoints()
    assert [len(one.xy) for one in found] == [2, 0, 4]
    for b, one in enumerate(found):
        kept = valid[b].numpy()
        np.testing.assert_array_equal(one.xy, coordinates.heatmap_to_input(peaks.xy_BN2[b].numpy()[kept]))
        np.testing.assert_array_equal(one.score, peaks.score_BN[b].numpy()[kept])
        np.testing.assert_array_equal(one.descriptors, plain[b].numpy()[kept])
        np.testing.assert_array_equal(one.descriptors_flipped, flipped[b].numpy()[kept])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_keypoints_of_the_cpu():
    torch.manual_seed(0)
    network = KeypointNetwork(NetworkConfig(width=32, depth=2, groups=4, descriptor_dim=16)).eval()
    rng = np.random.default_rng(0)
    images = np.stack([cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (64, 64)) for _ in range(8)])
    known = [np.float32([[20, 30], [9, 50]])] * 8
    found = []
    for device in ("cpu", "cuda"):
        placement = Placement.choose(ComputeConfig(precision="fp32"), torch.device(device))
        moved = placement.move(copy.deepcopy(network))
        extractor = DescriptorExtractor(moved, placement, DetectionConfig(nms_radius=2, limit=30))
        pending = [extractor.begin(images[i : i + 4], 0.0, known[i : i + 4]) for i in (0, 4)]  # none is waited for
        found.append([one for batch in pending for one in batch.keypoints()])
    for one, other in zip(*found, strict=True):
        assert len(one.xy) == pytest.approx(len(other.xy), abs=2)
        near = np.linalg.norm(one.xy[:, None] - other.xy[None], axis=-1)
        pairs = near.argmin(axis=1)
        same = near.min(axis=1) < 0.01
        assert same.mean() > 0.9
        np.testing.assert_allclose(one.score[same], other.score[pairs][same], atol=2e-3)
        for name in ("descriptors", "descriptors_flipped"):
            np.testing.assert_allclose(getattr(one, name)[same], getattr(other, name)[pairs][same], atol=1e-2)
