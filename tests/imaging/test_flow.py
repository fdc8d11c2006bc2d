"""Points carried by optical flow from one frame of a video into a view of another one."""

import cv2
import numpy as np
import pytest

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.imaging.flow import flow_between, warp_flow
from ray_kplm.imaging.warp import displace

SIDE = 96


def texture(seed):
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.integers(0, 60, (32, 32, 3)).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return cv2.addWeighted(coarse, 0.75, fine, 0.9, 0)


@pytest.fixture(scope="module")
def scene():
    return texture(0)


def moved(picture, matrix):
    return cv2.warpAffine(picture, np.float32(matrix), (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)


MOTION = np.array([[1.02, -0.05, 4.0], [0.05, 1.02, -3.0]])
INSIDE = np.stack(np.meshgrid(np.arange(24.0, 73, 8), np.arange(24.0, 73, 8)), -1).reshape(-1, 2)


def test_flow_recovers_a_known_motion(scene):
    flow = flow_between(scene, moved(scene, MOTION))
    found = INSIDE + flow[INSIDE[:, 1].astype(int), INSIDE[:, 0].astype(int)]
    assert np.abs(found - coordinates.apply(MOTION, INSIDE)).max() < 1.0
    assert not flow_between(scene, scene).any()


def test_covered_places_have_no_counterpart(scene):
    patch = texture(5)[28:68, 20:56]

    def with_patch_at(x):
        picture = scene.copy()
        picture[28:68, x : x + 36] = patch
        return picture

    lost = np.abs(flow_between(with_patch_at(20), with_patch_at(28))).max(-1) > SIDE
    assert lost[34:62, 56:64].mean() > 0.5  # where the patch moves to
    assert not lost[:, 76:].any()


@pytest.mark.parametrize("warp", [0.0, 0.06])
def test_a_view_of_a_later_frame_carries_points_of_the_earlier_one(scene, warp):
    """The same augmentation of the later frame alone says where points that moved with it belong."""
    later, still = moved(scene, MOTION), AugmentConfig(warp=warp, translate=0.02, rotate=20.0)
    augment = Augmenter(still, SIDE)
    alone, carried = augment(later, 7, True), augment(later, 7, True, scene)
    np.testing.assert_array_equal(alone.picture, carried.picture)

    def place(view, points):
        at = coordinates.apply(np.float64(view.crop_to_view), points)
        return displace(at[None], view.shifts[None], SIDE)[0]

    truth, found = place(alone, coordinates.apply(MOTION, INSIDE)), place(carried, INSIDE)
    inside = ((truth > 2) & (truth < SIDE - 3)).all(1)
    assert inside.sum() > 30
    assert np.median(np.abs(found - truth)[inside]) < 0.5
    assert np.abs(found - truth)[inside].max() < 1.5


@pytest.mark.parametrize("side", [64, 128, 256])
def test_warped_flow_has_a_value_for_each_heatmap_cell(side):
    """Between a place with a counterpart and one without nothing is told: a coarser lattice would lose the places between."""
    shifts = warp_flow(np.zeros((side, side, 2), np.float32), coordinates.scaling(1.0))
    assert (side - 1) / (len(shifts) - 1) <= coordinates.STRIDE
