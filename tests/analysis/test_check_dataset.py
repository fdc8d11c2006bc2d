"""`kplm check` on datasets with a fault each, and on their clean twin."""

import numpy as np
import pytest

from ray_kplm.analysis.check_dataset import check_dataset
from ray_kplm.config import load_config
from ray_kplm.errors import DataError
from ray_kplm.screening.verdict import Level
from tests.made_images import blurred, landscapes, objects, scaled, several, still_camera, write_dataset

COUNT = 60
FEW = {"images"}
"""Broken by all of these datasets, which are small to be quick."""


def check(folder, train, test=(), boxes=None, **options):
    dataset = write_dataset(folder, train, test, boxes)
    return check_dataset(dataset, load_config("faces_cpu", []), timed=False, **options)


def broken(found, level=Level.RISKY):
    return {one.name for one in found.findings if one.level >= level} - FEW


def test_one_object_an_image_breaks_no_rule(tmp_path):
    images, boxes = objects(COUNT + 20)
    found = check(tmp_path, images[:COUNT], images[COUNT:], boxes)
    assert broken(found) == set()
    assert found.level == Level.RISKY  # few images
    assert found.images == {"train": COUNT, "test": 20}
    assert 0.5 < found.measures.object_side < 0.9
    assert found.suggested["image_size"] == 96
    assert found.suggested["landmarks"] >= 6
    assert found.suggested["clusters"] >= 2 * found.suggested["landmarks"]


@pytest.mark.parametrize(
    ("make", "name", "level"),
    [
        (lambda: several(COUNT), "several_objects", Level.UNSUITABLE),
        (lambda: landscapes(COUNT), "place", Level.UNSUITABLE),
        (lambda: still_camera(COUNT), "background", Level.RISKY),
        (lambda: blurred(objects(COUNT)[0]), "detail", Level.UNSUITABLE),
        (lambda: scaled(objects(COUNT)[0], 32), "size", Level.UNSUITABLE),
    ],
    ids=["five objects", "landscapes", "still camera", "blurred", "tiny"],
)
def test_a_fault_is_caught_by_its_name(tmp_path, make, name, level):
    found = check(tmp_path, make())
    assert name in broken(found, level)
    assert found.examples[name]


def test_one_image_many_times_is_unsuitable(tmp_path):
    found = check(tmp_path, [objects(1)[0][0]] * 120)
    assert found.measures.distinct == 1
    assert {one.name for one in found.findings if one.level == Level.UNSUITABLE} >= {"images"}
    assert {"repeats", "variety"} <= broken(found)


def test_training_images_in_the_test_are_a_leak(tmp_path):
    images, boxes = objects(COUNT)
    found = check(tmp_path, images, images[:10], boxes)
    assert broken(found) == {"leak"}
    assert found.measures.leaked == 1
    assert [caption for caption, _, _ in found.examples["leak"]][:2] == ["test", "training"]


def test_the_same_seed_gives_the_same_figures_and_the_sample_is_bounded(tmp_path):
    images, boxes = objects(40)
    figures = [check(tmp_path / str(i), images, boxes=boxes, images=24).figures() for i in range(2)]
    for one in figures:
        assert one.pop("seconds") >= 0
        assert one["sample"] == 24
        one.pop("dataset")
    assert figures[0] == figures[1]


def test_annotated_boxes_of_part_of_the_images_are_no_boxes(tmp_path):
    images, boxes = objects(40)
    some = [box if index < 10 else None for index, box in enumerate(boxes)]
    assert check(tmp_path, images, boxes=some).measures.boxes == pytest.approx(0.25)


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="3 training images; at least 4"):
        check(tmp_path, objects(3)[0])


def test_pictures_of_one_colour_are_judged_and_do_not_fail(tmp_path):
    found = check(tmp_path, [np.full((64, 64, 3), 40 + index, np.uint8) for index in range(12)])
    assert {"exposure", "images"} <= broken(found) | FEW
    assert found.suggested["landmarks"] is None
    assert found.level == Level.UNSUITABLE
