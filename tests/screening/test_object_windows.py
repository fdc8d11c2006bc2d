"""Several objects in an image are counted where one, or none, is not."""

import cv2
import numpy as np
import pytest

from ray_kplm.dense_features.hog import Hog
from ray_kplm.screening.object_windows import CELLS, WINDOWS, find_objects
from ray_kplm.screening.verdict import FOUND_CONTRAST, SEVERAL, SMALL_WINDOW
from tests.made_images import landscapes, objects, several


def found(images):
    squares = np.stack([cv2.resize(one, (192, 192), interpolation=cv2.INTER_AREA) for one in images])
    return find_objects(Hog()(squares), Hog()(np.ascontiguousarray(squares[:, ::-1])))


def is_several(window):
    return window.contrast >= FOUND_CONTRAST and window.objects >= SEVERAL and window.side <= SMALL_WINDOW


@pytest.mark.parametrize("number", [2, 5])
def test_several_objects_are_counted(number):
    window = found(several(80, number))
    assert window.objects in ({2} if number == 2 else {3, 4, 5})
    assert is_several(window)
    assert all(((places >= 0) & (places <= 1)).all() for places in window.places)
    assert len(window.places) == 40


@pytest.mark.parametrize("images", [lambda: objects(80)[0], lambda: landscapes(80)], ids=["one", "none"])
def test_one_object_or_none_is_not_several(images):
    assert not is_several(found(images()))


def test_the_number_of_equal_shapes_is_exact_where_nothing_else_is_there():
    rng = np.random.default_rng(0)
    shape = rng.random((6, 6, 9), np.float32)
    maps = 0.3 * rng.random((40, CELLS, CELLS, 9), np.float32)
    for one in maps:
        for left in (0, 8, 16):
            x, y = left + rng.integers(0, 3), rng.integers(0, CELLS - 6)
            one[y : y + 6, x : x + 6] = shape
    window = find_objects(maps, maps[:, ::-1])
    assert window.side <= WINDOWS[2] / CELLS
    assert window.objects == 3
