"""The facing of stored images and of new ones: parts on storage, the rule on pixels, and what of a picture it looks at."""

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.config import load_config
from ray_kplm.correspondence.facing import FacingTemplate
from ray_kplm.dense_features import build_features, describe_images
from ray_kplm.methods.facing import FACING, FacingRule, Facings, box_around, cut
from ray_kplm.schemas import FACINGS
from ray_kplm.storage import Folder

CONFIG = load_config(None, ["network.image_size=64", "network.depth=2"])
SIDE = 64


def arrows(count=20, seed=0):
    """Pictures of a bright bar, upright on its left and slanting on its right, on noise: uint8 (count, SIDE, SIDE, 3)."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 40, (count, SIDE, SIDE, 3), dtype=np.uint8)
    for picture in pictures:
        x, y = rng.integers(-3, 4, 2)
        picture[16 + y : 48 + y, 18 + x : 22 + x] = 250
        for step in range(24):
            picture[18 + y + step : 21 + y + step, 28 + x + step // 2] = 250
    return pictures


def mirrored(pictures):
    return np.ascontiguousarray(pictures[:, :, ::-1])


@pytest.fixture(scope="module")
def rule() -> FacingRule:
    """The template is the difference of the pictures' mean descriptor and that of their mirror images."""
    model = build_features(CONFIG)
    plain, other = (describe_images(model, list(arrows()), mirrored=way) for way in (False, True))
    mean = (plain.mean(axis=0) + other.mean(axis=0)) / 2
    template = FacingTemplate(mean, plain.mean(axis=0) - other.mean(axis=0), 0.5)
    return FacingRule(CONFIG, template, np.array([0, 0, 1, 1], np.float32))


def test_facings_come_in_the_order_of_the_images(tmp_path):
    folder = Folder.at(tmp_path)
    folder.write_table("part-00000.parquet", pa.table([["a", "b", "c"], [0.5, -0.25, 1.0]], schema=FACINGS))
    found = Facings(folder).of("part-00000.parquet", ["c", "a", "c"])
    assert (found.dtype, found.tolist()) == (np.float32, [1.0, 0.5, 1.0])
    assert Facings(folder).of("part-00000.parquet", []).tolist() == []


def test_a_rule_is_read_as_it_was_written(rule, tmp_path):
    folder = Folder.at(tmp_path) / FACING
    assert FacingRule.of_detector(folder, CONFIG) is None
    box = FacingRule(CONFIG, rule.template, np.array([0.1, 0.2, 0.9, 0.7], np.float32))
    box.write(folder)
    read = FacingRule.of_detector(folder, CONFIG)
    np.testing.assert_array_equal(read.box, box.box)
    np.testing.assert_array_equal(read.template.mean, rule.template.mean)
    np.testing.assert_array_equal(read.template.direction, rule.template.direction)
    assert read.template.sharpness == rule.template.sharpness
    pictures = arrows(4, seed=1)
    np.testing.assert_array_equal(read(pictures), box(pictures))


def test_a_rule_gives_new_images_and_their_mirror_images_opposite_facings(rule):
    pictures = arrows(12, seed=3)
    facing = rule(pictures)
    assert facing.shape == (12,)
    assert (facing > 0.5).all()
    np.testing.assert_allclose(rule(mirrored(pictures)), -facing, atol=1e-5)


def test_the_mean_box_stands_for_boxes_that_are_not_known(rule):
    pictures = arrows(3, seed=4)
    narrow = FacingRule(CONFIG, rule.template, np.array([0.2, 0.1, 0.7, 0.9], np.float32))
    mean = np.tile(narrow.box * SIDE, (3, 1))
    np.testing.assert_array_equal(narrow(pictures), narrow(pictures, mean))
    known = np.float32([[0, 0, 63, 63], [np.nan] * 4, [np.nan] * 4])
    mixed = narrow(pictures, known)
    np.testing.assert_allclose(mixed[1:], narrow(pictures)[1:])
    np.testing.assert_allclose(mixed[0], narrow(pictures[:1], known[:1])[0])
    assert mixed[0] != narrow(pictures)[0]


def test_points_add_the_evidence_of_the_box_around_them_where_no_box_is_known(rule):
    pictures = arrows(2, seed=5)
    points = np.tile(np.float32([[16, 14], [16, 50], [42, 14], [42, 50]]), (2, 1, 1))
    boxes = np.float32([[0, 0, 63, 63], [np.nan] * 4])
    plain, around = rule(pictures, boxes), rule(pictures, boxes, points)
    assert around[0] == plain[0]
    alone = np.arctanh(rule(pictures, box_around(points)).astype(np.float64))
    expected = np.tanh(np.arctanh(plain[1].astype(np.float64)) + alone[1])
    assert around[1] == pytest.approx(expected, abs=1e-3)
    nothing = rule(pictures, boxes, np.full_like(points, np.nan))
    assert np.sign(nothing).tolist() == np.sign(plain).tolist()


def test_the_box_around_points_holds_most_of_them_with_room():
    points = np.full((2, 100, 2), np.nan, np.float32)
    points[0] = np.stack([np.linspace(10, 30, 100), np.linspace(20, 60, 100)], axis=1)
    points[0, 0] = (1000, 1000)  # a landmark that is far off
    box = box_around(points)
    assert (box[0, 2:] < 80).all()
    inside = ((points[0] >= box[0, :2]) & (points[0] <= box[0, 2:])).all(axis=1)
    assert inside.sum() >= 98
    assert np.isnan(box[1]).all()


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        (None, (40, 60)),
        ([10, 5, 19, 24], (20, 10)),
        ([-5, -5, 9, 9], (10, 10)),  # what lies in the picture
        ([50.4, 30.6, 99, 99], (9, 10)),
        ([70, 50, 80, 60], (40, 60)),  # beside the picture: the whole
        ([59, 0, 70, 39], (40, 60)),  # a column is hardly anything
    ],
)
def test_a_box_cuts_its_pixels_out_of_a_picture(box, shape):
    picture = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    found = cut(picture, box)
    assert found.shape[:2] == shape
    if box and shape != (40, 60):
        np.testing.assert_array_equal(found[0, 0], picture[max(round(box[1]), 0), max(round(box[0]), 0)])
