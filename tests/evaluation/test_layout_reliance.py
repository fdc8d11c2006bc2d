"""Layout reliance of detectors that follow a moved object, or do not."""

import numpy as np
import pytest

from ray_kplm.evaluation.layout_reliance import MEASURES, MovedObjects, identity_by_position, measure_layout_reliance

SIDE, IMAGES = 100, 20
XY = np.array([[20.0, 50.0], [80.0, 50.0], [50.0, 30.0]]) + np.random.default_rng(0).uniform(-5, 5, (IMAGES, 1, 2))
SHIFT = np.tile([[20.0, 0.0], [0.0, -20.0]], (IMAGES // 2, 1))


def objects(follow=1.0, background=0.0, covers=True):
    return MovedObjects(
        placed=XY,
        moved=XY + follow * SHIFT[:, None],
        shift=SHIFT,
        swapped=XY + np.array([background, 0]),
        covers=np.full(XY.shape[:2], covers),
    )


@pytest.mark.parametrize(("follow", "error", "lag"), [(1, 0, 0), (0, 20, 1), (0.75, 5, 0.25)])
def test_the_error_is_what_landmarks_stay_behind(follow, error, lag):
    found = measure_layout_reliance(objects(follow), XY, SIDE, facing=False)
    assert [found["shift_error"], found["shift_error_median"]] == pytest.approx([error, error])
    assert found["shift_error_per_landmark"] == pytest.approx([error] * 3)
    assert found["shift_lag"] == pytest.approx(lag)
    assert found["background_error"] == 0


def test_motion_on_another_background_is_measured():
    found = measure_layout_reliance(objects(background=7.0), XY, SIDE, facing=False)
    assert found["background_error"] == found["background_error_median"] == pytest.approx(7)


def test_landmarks_beside_the_cut_out_and_undetected_ones_do_not_count():
    found = measure_layout_reliance(objects(covers=False), XY, SIDE, facing=False)
    assert found["shift_error"] is None
    assert found["background_error"] is None
    some = objects(0.5)
    some.moved[:, 1] = np.nan
    found = measure_layout_reliance(some, XY, SIDE, facing=False)
    assert found["shift_error"] == pytest.approx(10)
    assert found["shift_error_per_landmark"] == [pytest.approx(10), None, pytest.approx(10)]


def test_without_composites_nothing_is_known():
    assert measure_layout_reliance(None, XY, SIDE, facing=False) == dict.fromkeys(MEASURES)


def test_a_rigid_layout_tells_every_identity_and_random_places_tell_few():
    angles = np.linspace(0, 3, IMAGES)
    turned = XY @ np.moveaxis(np.array([[np.cos(angles), np.sin(angles)], [-np.sin(angles), np.cos(angles)]]), -1, 0)
    assert identity_by_position(turned, canonical=True, facing=False) == 1
    assert identity_by_position(turned, canonical=False, facing=False) < 0.9
    rng = np.random.default_rng(1)
    assert identity_by_position(rng.uniform(0, 99, (400, 10, 2)), canonical=False, facing=False) < 0.25
    assert np.isnan(identity_by_position(np.full((4, 3, 2), np.nan), canonical=True, facing=False))
