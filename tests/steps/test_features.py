"""What detection and extraction write of chosen rows of a part, whose crops are of different sizes; no Ray is started."""

import io
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.correspondence.features import read_features
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.methods.extractor import Detected
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.steps.detect import DetectPart
from ray_kplm.steps.extract_part import Extraction, ExtractPart
from ray_kplm.steps.keypoint_sample import FindKeypoints
from ray_kplm.storage import Folder

SIDE, PART = 64, "part-00000.parquet"
SIZES = [(100, 60), (60, 100), (80, 80), (64, 64), (250, 90)]
ROWS = np.array([0, 1, 4])
CONFIG = load_config(
    None,
    [f"network.image_size={SIDE}", "network.depth=2", "compute.batch_images=2", "compute.threads=1", "keypoints.detector=orb",
     "detection.threshold=fixed", "keypoints.limit=10"],
)  # fmt: skip
IN_INPUT = np.array([[31.5, 31.5], [40.0, 30.0]], np.float32)


class KeypointExtractor:
    """Finds two points at the same places of any input."""

    def begin(self, images, threshold, known=None):
        one = np.ones((2, 4), np.float16)
        return SimpleNamespace(keypoints=lambda: [Detected(IN_INPUT, np.ones(2, np.float32), one, one) for _ in images])


@pytest.fixture
def images(tmp_path) -> Folder:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    encoded = [cv2.imencode(".png", crop)[1].tobytes() for crop in crops]
    folder = Folder.at(tmp_path / "images")
    width, height = np.array(SIZES, np.int32).T
    ids = [f"{i}.png" for i in range(len(SIZES))]
    folder.write_table(PART, pa.table({"image_id": ids, "image": encoded, "box": pa.nulls(len(SIZES), pa.list_(pa.float32())),
                                       "width": width, "height": height}))  # fmt: skip
    return folder


def test_sizes_of_a_table_of_images(images):
    assert crop_sizes(images.read_table(PART)).tolist() == [list(size) for size in SIZES]


def test_extracted_keypoints_are_placed_in_the_input_by_their_crops_sizes(images, tmp_path):
    network, features = Folder.at(tmp_path / "network"), Folder.at(tmp_path / "features")
    buffer = io.BytesIO()
    torch.save({"network": {}}, buffer)
    network.write_bytes(NETWORK, buffer.getvalue())
    method = SimpleNamespace(config=CONFIG, extractor=lambda weights, placement, number: KeypointExtractor())
    work = Extraction(method, 1, network, images, Selection([PART], [ROWS]), 2.0, features, threshold=0.15)
    assert ExtractPart(work)(PART, ROWS)["images"] == len(ROWS)
    found = read_features(features, PART)
    assert found.sizes.tolist() == [list(SIZES[row]) for row in ROWS]
    assert found.xy[::2].tolist() == [
        [(width - 1) / 2, (height - 1) / 2] for width, height in found.sizes
    ]  # crop frame
    np.testing.assert_allclose(found.xy_square, np.tile((IN_INPUT + 0.5) / SIDE, (len(ROWS), 1)), atol=1e-6)


def test_detected_keypoints_with_descriptors_have_their_crops_sizes(images, tmp_path):
    target = Folder.at(tmp_path / "keypoints")
    find = FindKeypoints(images, Folder.at(tmp_path / "none"), CONFIG.keypoints, 0)
    DetectPart(find, target, described=True)(PART, ROWS)
    found = read_features(target, PART)
    assert found.sizes.tolist() == [list(SIZES[row]) for row in ROWS]
    assert found.counts.sum() > 0
