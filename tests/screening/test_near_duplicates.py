"""Near repeats: the same picture after a change that an eye hardly sees, and no others."""

import cv2
import numpy as np
import pytest

from ray_kplm.screening.near_duplicates import Prints, groups, repeats
from tests.made_images import objects


@pytest.fixture(scope="module")
def pictures():
    return objects(40)[0]


def encoded(picture, quality):
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.copy(),
        lambda p: encoded(p, 60),
        lambda p: cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA),
        lambda p: np.clip(p.astype(float) + 12, 0, 255).astype(np.uint8),
        lambda p: np.clip(p * 1.1, 0, 255).astype(np.uint8),
    ],
    ids=["same", "encoded again", "scaled", "brighter", "more contrast"],
)
def test_a_changed_copy_is_a_repeat_and_other_pictures_are_not(pictures, change):
    found = groups(Prints.of([*pictures, *map(change, pictures)]))
    assert len(np.unique(found[:40])) == 40
    assert (found[:40] == found[40:]).mean() >= 0.9


def test_the_mirror_image_is_another_picture(pictures):
    found = groups(Prints.of([*pictures, *(np.ascontiguousarray(p[:, ::-1]) for p in pictures)]))
    assert len(np.unique(found)) == 80


def test_one_picture_many_times(pictures):
    found = repeats(Prints.of([pictures[0]] * 200 + pictures[1:4]), Prints.of([]))
    assert (found.distinct, found.largest) == (4, 200)
    assert found.repeated == pytest.approx(199 / 203)
    assert found.examples[0] == [0, 1, 2, 3, 4, 5]
    assert np.isnan(found.leaked)


def test_training_pictures_in_the_test_are_leaks(pictures):
    found = repeats(Prints.of(pictures[:20]), Prints.of([*pictures[20:35], encoded(pictures[3], 70)]))
    assert found.leaked == pytest.approx(1 / 16)
    assert found.leaks == [(15, 3)]
    assert found.distinct == 20


def test_no_pictures_and_one_picture():
    assert len(groups(Prints.of([]))) == 0
    assert groups(Prints.of([np.zeros((8, 8, 3), np.uint8)])).tolist() == [0]
