"""What an observing actor writes, of detectors whose answers are known; no Ray is started."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.analysis.observe import ObservePart, Work, read_observations
from ray_kplm.config import load_config
from ray_kplm.evaluation.label_free import measure
from ray_kplm.methods.predicted import Observed, Predicted
from ray_kplm.storage import Folder

SIDE, IMAGES = 64, 12
CONFIG = load_config(
    None, [f"network.image_size={SIDE}", "network.depth=2", "compute.batch_images=5", "compute.threads=1"]
)
PART = "part-00000.parquet"
PARTNERS = np.array([0, 1, 2], np.int16)


class Blobs:
    """Finds the middle of what is red, green and blue: three landmarks that follow any motion of the picture."""

    def __init__(self, placement):
        self.grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1)

    def __call__(self, images):
        weight = images.astype(np.float64)
        xy = np.einsum("bhwk,hwc->bkc", weight, self.grid) / weight.sum(axis=(1, 2))[..., None]
        sure = np.ones(xy.shape[:2], np.float32)
        return Predicted(xy.astype(np.float32), sure, sure)

    def observe(self, images):
        xy, confidence, *_ = self(images)
        return Observed(xy, confidence, confidence, None)


class Fixed(Blobs):
    """Looks at nothing, and misses one landmark."""

    def __call__(self, images):
        xy = np.array([[20, 20], [40, 30], [np.nan, np.nan]], np.float32)
        sure = np.ones((len(images), 3), np.float32)
        return Predicted(np.tile(xy, (len(images), 1, 1)), sure, sure)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Folder:
    """Three coloured blobs on black, well inside, in pictures of another size than the input's."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((2 * SIDE, 2 * SIDE))
    encoded = []
    for _ in range(IMAGES):
        centres = SIDE + rng.uniform(-0.4, 0.4, (3, 2)) * SIDE
        blobs = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2)) for x, y in centres]
        rgb = np.rint(255 * np.stack(blobs, axis=-1)).astype(np.uint8)
        encoded.append(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    folder = Folder.at(tmp_path_factory.mktemp("pictures"))
    ids = [f"{number}.png" for number in range(IMAGES)]
    boxes = pa.array([None] * IMAGES, pa.list_(pa.float32()))
    folder.write_table(PART, pa.table({"image_id": ids, "image": pa.array(encoded, pa.binary()), "box": boxes}))
    return folder


def observed(pictures: Folder, target: Path, make, rows=tuple(range(IMAGES))):
    folder = Folder.at(target)
    answer = ObservePart(Work(CONFIG, make, pictures, folder))(PART, np.array(rows))
    assert answer == {"images": len(rows)}
    return read_observations(folder, [PART], SIDE, PARTNERS, always=False)


def test_a_detector_that_follows_the_picture_has_no_error(pictures, tmp_path):
    seen = observed(pictures, tmp_path, Blobs)
    assert seen.expected.shape == seen.found.shape == (IMAGES, 3, 3, 2)
    found = measure(seen)
    assert found["view_motion"] > 3
    # A warp bends the blob too, so that its middle moves a little otherwise than the point there does: by 0.08 pixels.
    assert found["equivariance_error"] < 0.2
    assert found["flip_error"] == pytest.approx(0, abs=1e-4)
    assert found["detection_rate"] == found["repeatability"] == 1


def test_a_detector_that_ignores_the_image_has_the_error_of_the_views(pictures, tmp_path):
    found = measure(observed(pictures, tmp_path, Fixed))
    assert found["equivariance_per_landmark"][:2] == pytest.approx(found["view_motion_per_landmark"][:2], rel=1e-6)
    assert found["detection_rate_per_landmark"] == [1, 1, 0]
    # x and its mirror x -> 63 - x: 23 pixels from 20, 17 from 40.
    assert found["flip_per_landmark"] == [pytest.approx(2300 / SIDE), pytest.approx(1700 / SIDE), None]


def test_views_are_of_the_image_alone(pictures, tmp_path):
    """Whatever else is looked at, in whatever batch: an image's views are the same, and those of two images are not."""
    whole, some = (observed(pictures, tmp_path / name, Blobs, rows) for name, rows in
                   (("whole", range(IMAGES)), ("some", (3, 8))))  # fmt: skip
    np.testing.assert_array_equal(some.expected, whole.expected[[3, 8]])
    np.testing.assert_array_equal(some.found, whole.found[[3, 8]])
    moved = whole.expected - whole.xy[:, None]
    assert len(np.unique(moved[:, :, 0, 0])) == IMAGES * 3


def test_an_existing_part_is_not_observed_again(pictures, tmp_path):
    observed(pictures, tmp_path, Blobs)
    again = observed(pictures, tmp_path, Fixed)
    assert measure(again)["equivariance_error"] < 0.2
