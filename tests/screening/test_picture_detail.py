"""The detail of a picture does not depend on its number of pixels."""

import cv2
import numpy as np

from ray_kplm.screening.picture_detail import detail_side
from tests.made_images import blurred, objects


def test_a_sharp_picture_needs_all_its_pixels_and_a_blurred_one_does_not():
    sharp = objects(10)[0]
    assert np.median([detail_side(one) for one in sharp]) >= 80
    assert np.median([detail_side(one) for one in blurred(sharp)]) <= 20


def test_enlarging_adds_no_detail():
    small = objects(5, size=48)[0]
    large = [cv2.resize(one, (192, 192), interpolation=cv2.INTER_CUBIC) for one in small]
    assert max(detail_side(one) for one in large) <= 64


def test_a_picture_of_one_colour_has_no_detail():
    assert detail_side(np.full((100, 60, 3), 90, np.uint8)) == 16
