"""Statistics of whole sets of images: closed forms, and rendered sets with and without what they look for."""

import numpy as np
import pytest

from ray_kplm.dense_features import describe_images
from ray_kplm.dense_features.hog import Hog
from ray_kplm.screening.common_place import common_place, effective_number, fixed_background
from ray_kplm.screening.picture_detail import border_details
from ray_kplm.screening.verdict import DIFFUSE, FIXED, NO_PLACE
from tests.made_images import landscapes, objects, small_objects, still_camera


def maps(images):
    return describe_images(Hog(), images).reshape(len(images), 12, 12, 9)


def test_objects_are_at_a_common_place_and_landscapes_are_not():
    assert common_place(maps(objects(60)[0])) > DIFFUSE
    assert abs(common_place(maps(landscapes(60)))) < NO_PLACE
    assert abs(common_place(maps(small_objects(60)))) < NO_PLACE


def test_what_is_the_same_along_a_row_is_no_common_place():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.random((50, 12, 1, 4), np.float32), 12, axis=2)
    assert common_place(rows) == pytest.approx(0, abs=1e-6)


def test_the_effective_number_counts_images_that_have_nothing_in_common():
    rng = np.random.default_rng(0)
    kinds = np.eye(5, 40, dtype=np.float32)[np.arange(200) % 5]
    assert effective_number(kinds) == pytest.approx(4, abs=0.01)  # five corners of a simplex span four directions
    assert effective_number(np.ones((20, 8), np.float32)) == 1
    assert effective_number(rng.standard_normal((60, 5000)).astype(np.float32)) > 50


def test_a_still_camera_is_told_from_backgrounds_that_differ():
    still, moving = (
        fixed_background(np.stack([border_details(one) for one in images]))
        for images in (still_camera(60), objects(60)[0])
    )
    assert still > FIXED
    assert abs(moving) < 0.1
