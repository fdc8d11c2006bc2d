"""Generic keypoints of single images, as a run began with them, and the outlier rule; no Ray is started."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from ray_kplm.analysis import label_free
from ray_kplm.config import Config, KeypointsConfig, MethodConfig
from ray_kplm.correspondence.background import find_background
from ray_kplm.correspondence.features import read_columns
from ray_kplm.datasets.dataset import PartBuilder
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.errors import CollapseError
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import encode_png
from ray_kplm.runtime.map_parts import Pool
from ray_kplm.schemas import IMAGES
from ray_kplm.steps.detect import DetectPart, check_enough, keypoint_finder
from ray_kplm.steps.keypoint_sample import FindKeypoints, OutlierRule, _sample_part, outlier_rule, sample_keypoints
from ray_kplm.storage import Folder

PART = "part-00000.parquet"
CONFIG = KeypointsConfig(detector="sift", limit=30)
ROWS = np.array([0, 2])


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))


@pytest.fixture
def images(tmp_path) -> Folder:
    """Three pictures of squares of random greys."""
    part, rng = PartBuilder(0), np.random.default_rng(3)
    for i in range(3):
        image = np.kron(rng.integers(0, 255, (8, 8, 1), dtype=np.uint8), np.ones((12, 12, 3), np.uint8))
        part.add(f"{i}", encode_png(image), image, None, coordinates.translation(0, 0), None)
    folder = Folder.at(tmp_path / "images")
    folder.write_table(PART, part.tables().images.cast(IMAGES))
    return folder


def test_a_picture_of_the_start_shows_the_keypoints_that_the_run_began_with(images, tmp_path):
    landmarks, detected = Folder.at(tmp_path / "landmarks"), Folder.at(tmp_path / "keypoints")
    plain = keypoint_finder(images, landmarks, detected, CONFIG, 0)(PART, ROWS)
    descriptors = np.concatenate([k.descriptors for k in FindKeypoints(images, landmarks, CONFIG, 0)(PART, ROWS)[1]])
    rule = OutlierRule(descriptors, limit=float(np.linalg.norm(descriptors[:, None] - descriptors, axis=2).mean()))
    detected.write_bytes("outliers.npz", rule.to_bytes())
    DetectPart(FindKeypoints(images, landmarks, CONFIG, 0), detected, described=False)(PART, ROWS)
    stored = [np.reshape(xy, (-1, 2)) for xy in detected.read_table(PART)["xy"].to_pylist()]
    found = keypoint_finder(images, landmarks, detected, CONFIG, 0)(PART, ROWS)
    for xy, expected in zip(found, stored, strict=True):
        np.testing.assert_array_equal(xy, expected.astype(np.float32))
    assert 0 < sum(map(len, found)) < sum(map(len, plain))


class Sampled(Exception):
    """Raised in place of a sample, with its seed."""


def sample(self: Selection, count: int, seed: tuple[int, ...], parts: int | None = None) -> Selection:
    raise Sampled(*seed)


def test_the_outlier_rule_and_the_quality_are_made_from_independent_samples(tmp_path, monkeypatch):
    folder, whole = Folder.at(tmp_path), full_selection(["part-00000.parquet"], [1000])
    find = FindKeypoints(folder, folder, KeypointsConfig(), 5)
    with monkeypatch.context() as patch:
        patch.setattr(Selection, "sample", sample)
        with pytest.raises(Sampled) as sampled:
            sample_keypoints(find, whole, 5, Pool(1))
    of_rule, of_quality = (whole.sample(100, seed).rows[0] for seed in (sampled.value.args, (5, label_free._SAMPLE)))
    assert len(np.intersect1d(of_rule, of_quality)) < 30  # 10 are expected by chance


FLAT = [np.full((64, 64, 3), grey, np.uint8) for grey in (255, 0, 128)]


def folder_of(path, pictures) -> Folder:
    part = PartBuilder(0)
    for number, image in enumerate(pictures):
        part.add(f"{number}", encode_png(image), image, None, coordinates.translation(0, 0), None)
    folder = Folder.at(path)
    folder.write_table(PART, part.tables().images.cast(IMAGES))
    return folder


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize("detector", ["sift", "orb", "aliked", "file"])
@pytest.mark.parametrize("some", [False, True])
def test_pictures_that_show_nothing_have_no_keypoints(detector, described, some, images, tmp_path):
    """Alone, and beside others."""
    if detector == "aliked":
        pytest.importorskip("lightglue", reason="no weights of ALIKED: pip install -e '.[aliked]'")
    if detector == "file" and described:
        pytest.skip("keypoints of a file have no descriptors")
    stored = images.read_table(PART)["image"].to_pylist()[:1] if some else []
    flat = folder_of(tmp_path / "flat", [*FLAT, *(np.asarray(Image.open(io.BytesIO(one))) for one in stored)])
    config = KeypointsConfig(detector=detector, limit=30, file=str(tmp_path / "mine.parquet"))
    if detector == "file":
        rows = [
            {"image_id": "0", "xy": []},
            {"image_id": "1", "xy": [[np.nan, 1.0]]},
            {"image_id": "3", "xy": [[9.0, 9.0]] * 9},
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    find, target = FindKeypoints(flat, Folder.at(tmp_path / "landmarks"), config, 0), Folder.at(tmp_path / "target")
    rows = np.arange(3 + some)
    answer = DetectPart(find, target, described)(PART, rows)
    assert (answer["images"], answer["empty"]) == (3 + some, 3)
    assert (answer["kept"] > 2) == some
    assert [len(xy) for xy in read_columns(target, PART, ["xy"])["xy"].to_pylist()][:3] == [0, 0, 0]
    sample = _sample_part(find, PART, rows)
    if detector == "file" or not some:
        assert sample is None
    else:
        assert set(sample.image.tolist()) == {3}
        assert np.isfinite(outlier_rule(sample.descriptors, 0.4).limit)
        find_background(*sample)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            (8, 0.0, 8),
            r"^0 generic keypoints in 8 images, of which 8 show fewer than two: fewer an image than limits\.min_p",
        ),
        ((8, 1.5, 4), r"^12 generic keypoints in 8 images, of which 4 show fewer than two: fewer an image"),
        ((100, 5.0, 95), r"^500 generic keypoints in 100 images, of which 95 .*: too few images with two or more"),
        (
            (8, 10.0, 1),
            r"^80 generic keypoints in 8 images, of which 1 .*: fewer than method\.clusters = 100; look at the",
        ),
    ],
)
def test_too_few_keypoints_end_a_run_before_training_with_their_number(facts, message):
    images, each, blank = facts
    found = {"images": images, "points_per_image": each, "images_without_keypoints": blank}
    with pytest.raises(CollapseError, match=message) as raised:
        check_enough(found, Config())
    assert "\n" not in str(raised.value)


def test_enough_keypoints_pass():
    check_enough({"images": 10, "points_per_image": 10.0, "images_without_keypoints": 9}, Config())
    template = Config(method=MethodConfig(kind="template"))
    check_enough({"images": 8, "points_per_image": 3.0, "images_without_keypoints": 0}, template)


@pytest.mark.parametrize("described", [False, True])
def test_a_part_of_keypoints_on_storage_is_counted_and_not_made_again(tmp_path, described):
    rng, target = np.random.default_rng(0), Folder.at(tmp_path / "target")
    noisy = [cv2.resize(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), (96, 96)) for _ in range(3)]
    folder = folder_of(tmp_path / "images", noisy)
    find = FindKeypoints(folder, folder, KeypointsConfig(detector="orb", limit=20), 0)
    first = DetectPart(find, target, described)(PART, np.arange(3))
    assert first["kept"] > 10
    [name] = target.names()
    before = target.read_bytes(name)
    folder.delete()  # nothing is read again
    assert DetectPart(find, target, described)(PART, np.arange(3)) == {**first, "found": first["kept"]}
    assert target.read_bytes(name) == before
