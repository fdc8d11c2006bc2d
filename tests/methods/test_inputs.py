"""Stored images as inputs of the network: boxes in the input frame, and mirror images whose points are the same places."""

import cv2
import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.config import load_config
from ray_kplm.imaging import coordinates
from ray_kplm.methods.inputs import Inputs, make_inputs

CONFIG = load_config(None, ["network.image_size=64", "network.depth=2", "compute.batch_images=2"])


@pytest.fixture(scope="module")
def batch() -> Inputs:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    maps = [coordinates.crop_to_input(*size, 64) for size in ((128, 96), (64, 64), (50, 80))]
    boxes = np.float32([[4, 10, 40, 50], [np.nan] * 4, [0, 0, 63, 63]])
    return Inputs(images, maps, ["a", "b", "c"], boxes)


def equal(one: Inputs, other: Inputs) -> None:
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_allclose(one.crop_to_input, other.crop_to_input, atol=1e-9)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
    assert one.ids == other.ids


def test_mirroring_twice_gives_the_batch_back(batch):
    turn = np.array([True, True, False])
    equal(batch.mirrored(turn).mirrored(turn), batch)
    equal(batch.mirrored(np.zeros(3, bool)), batch)


def test_mirroring_changes_the_chosen_images_alone_and_not_the_batch_itself(batch):
    before = batch.images.copy()
    found = batch.mirrored(np.array([True, False, False]))
    np.testing.assert_array_equal(batch.images, before)
    np.testing.assert_array_equal(found.images[0], before[0, :, ::-1])
    np.testing.assert_array_equal(found.images[1:], before[1:])


def test_a_point_of_the_crop_is_at_the_same_pixel_in_the_mirror_image(batch):
    found = batch.mirrored(np.ones(3, bool))
    for n in range(3):
        at = np.array([20.0, 30.0])
        point = coordinates.apply(coordinates.invert(batch.crop_to_input[n]), at)
        x, y = np.rint(coordinates.apply(found.crop_to_input[n], point)).astype(int)
        assert (x, y) == (43, 30)
        np.testing.assert_array_equal(found.images[n, y, x], batch.images[n, 30, 20])


def test_a_box_holds_the_same_pixels_in_the_mirror_image(batch):
    found = batch.mirrored(np.ones(3, bool))
    assert found.boxes[0].tolist() == [23, 10, 59, 50]
    assert np.isnan(found.boxes[1]).all()
    assert found.boxes[2].tolist() == [0, 0, 63, 63]


def test_boxes_of_crops_are_in_the_input_frame_and_nan_where_none_is_known():
    encoded = [cv2.imencode(".png", np.full((32, 64, 3), 90, np.uint8))[1].tobytes()] * 3
    table = pa.table(
        {
            "image_id": ["a", "b", "c"],
            "image": encoded,
            "box": pa.array([[0.0, 0.0, 63.0, 31.0], None, [8.0, 4.0, 16.0, 12.0]], pa.list_(pa.float32())),
        }
    )
    batches = list(make_inputs(table, np.array([0, 1, 2]), CONFIG))
    assert [found.ids for found in batches] == [["a", "b"], ["c"]]
    assert batches[0].boxes[0].tolist() == [0, 16, 63, 47]  # centred in the square
    assert np.isnan(batches[0].boxes[1]).all()
    assert batches[1].boxes[0].tolist() == [8, 20, 16, 28]
