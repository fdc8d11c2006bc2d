"""Extraction of parts: the threshold of a sample that is read once, stages that overlap, parts that are there. No Ray."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.config import load_config
from ray_kplm.correspondence.features import feature_parts, read_features
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, full_selection
from ray_kplm.errors import StorageError
from ray_kplm.methods.extractor import Detected, calibrated_threshold
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.inputs import Inputs
from ray_kplm.parts import Pool, ThisProcess
from ray_kplm.schemas import FACINGS
from ray_kplm.steps import extract_part as workers
from ray_kplm.steps.extract import calibrate, calibration_sample, extract
from ray_kplm.steps.extract_part import Extraction, ExtractPart
from ray_kplm.storage import Folder

PARTS, ROWS, DIM = [f"part-{i:05d}.parquet" for i in range(313)], 512, 4
CONFIG = load_config(None, ["method.landmarks=3", "method.clusters=3", "compute.batch_images=64", "compute.threads=1"])
WHOLE = full_selection(PARTS, [ROWS] * len(PARTS))


def peaks(image: int) -> np.ndarray:
    """Twenty heights, which any process finds again."""
    return np.random.default_rng(image).random(20).astype(np.float32)


class Extractor:
    """Images are their own numbers."""

    def scores(self, images, boxes=None):
        return np.concatenate([peaks(int(image)) for image in images])

    def begin(self, images, threshold, known=None):
        kept = [np.sort(peaks(int(image))[peaks(int(image)) > threshold]) for image in images]
        found = [
            Detected(np.zeros((len(k), 2), np.float32), k, *[np.zeros((len(k), DIM), np.float16)] * 2) for k in kept
        ]
        return SimpleNamespace(keypoints=lambda: found)


class Images(Folder):
    """Notes the parts that are read, in `reads`."""

    reads: ClassVar[list[str]] = []

    def read_table(self, name, columns=None):
        self.reads.append(name)
        ids = [f"{name}/{i}" for i in range(ROWS)]
        return pa.table({"part": [name] * ROWS, "image_id": ids, "width": [90] * ROWS, "height": [60] * ROWS})


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Parts in the order in which they are read."""

    def make_inputs(table, rows, config, threads=None):
        start = PARTS.index(table["part"][0].as_py()) * ROWS
        for batch in np.array_split(rows + start, range(64, len(rows), 64)):
            boxes = np.full((len(batch), 4), np.nan, np.float32)
            yield Inputs(batch, [np.eye(2, 3)] * len(batch), [str(i) for i in batch], boxes)

    monkeypatch.setattr(workers, "make_inputs", make_inputs)
    monkeypatch.setattr(workers, "read_weights", lambda folder: {})
    Images.reads.clear()
    return Images.reads


def extraction(tmp_path, name: str, selection=WHOLE, **options) -> Extraction:
    network = Folder.at(tmp_path / "train")
    network.write_bytes("network.pt", b"")
    method = SimpleNamespace(config=CONFIG, extractor=lambda weights, placement, number: Extractor())
    sample, images = calibration_sample(selection, CONFIG), Images.at(tmp_path)
    return Extraction(method, 1, network, images, sample, 2.0, Folder.at(tmp_path / name), **options)


def threshold(work: Extraction) -> float | None:
    return calibrate(work, ThisProcess(), Pool(1)).threshold


def test_the_sample_is_read_once_for_the_threshold_of_all_its_peaks(tmp_path, reads):
    """It was 255 parts for each process."""
    work = extraction(tmp_path, "a")
    assert (work.sample.images, len(work.sample.parts)) == (500, SAMPLE_PARTS)
    found = threshold(work)
    assert reads == work.sample.parts
    numbers = [
        PARTS.index(p) * ROWS + r for p, rows in zip(work.sample.parts, work.sample.rows, strict=True) for r in rows
    ]
    assert found == calibrated_threshold(np.concatenate([peaks(i) for i in numbers]), 500, 6.0)
    reads.clear()
    assert threshold(work) == found
    assert reads == []


def test_what_was_calibrated_before_an_interruption_is_not_done_again(tmp_path, reads, monkeypatch):
    work = extraction(tmp_path, "a")
    score, done = Extractor.scores, []

    def killed(self, images, boxes=None):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(images)
        return score(self, images)

    monkeypatch.setattr(Extractor, "scores", killed)
    with pytest.raises(KeyboardInterrupt):
        threshold(work)
    monkeypatch.setattr(Extractor, "scores", score)
    before = reads[:-1]  # the last one was not finished
    reads.clear()
    assert threshold(work) == threshold(extraction(tmp_path, "b"))
    assert before + reads[: -len(work.sample.parts)] == work.sample.parts


FEW = full_selection(PARTS[:5], [200, 130, 1, 64, 100])


@pytest.mark.parametrize("ahead", [0, 2])
def test_extraction_leaves_features_and_nothing_else(tmp_path, reads, ahead):
    work = extraction(tmp_path, "a", FEW, ahead=ahead)
    calls: list[tuple[float, str]] = []
    facts = extract(work, FEW, lambda *call: calls.append(call), ThisProcess())
    assert facts["images"] == 495
    assert facts["detected_per_image"] == pytest.approx(6.0, abs=0.1)
    assert facts["threshold"] == threshold(extraction(tmp_path, "b", FEW))
    assert work.features.walk() == [part.replace("parquet", "arrow") for part in FEW.parts]
    shares = [share for share, _ in calls]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "decode", "write"))]
    for part, rows in zip(FEW.parts, FEW.rows, strict=True):
        numbers = PARTS.index(part) * ROWS + rows
        found = read_features(work.features, part)
        assert found.image_id.to_pylist() == [str(n) for n in numbers]
        assert found.score.tolist() == [x for n in numbers for x in np.sort(peaks(n)) if x > facts["threshold"]]


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("ahead", [0, 3])
def test_parts_on_storage_are_not_made_again_and_count_all_the_same(tmp_path, reads, ahead, described):
    work = extraction(tmp_path, "a", FEW, ahead=ahead, described=described)
    facts = extract(work, FEW, workers=ThisProcess())
    first, lost = [(work.features / name).path for name in work.features.names()], work.features.names()[3]
    times = {path: Path(path).stat().st_mtime_ns for path in first}
    work.features.delete_file(lost)
    reads.clear()
    assert extract(work, FEW, workers=ThisProcess()) == facts
    assert reads == [*work.sample.parts, FEW.parts[3]]
    assert [path for path in first if Path(path).stat().st_mtime_ns != times[path]] == [f"{work.features.path}/{lost}"]


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("stage", ["read", "decode", "network", "collect", "write"])
def test_an_error_of_any_stage_reaches_the_caller_and_leaves_whole_parts_only(
    tmp_path, reads, monkeypatch, stage, ahead
):
    work = replace(extraction(tmp_path, "a", FEW, ahead=ahead), threshold=0.5)
    worker, begun = workers.ExtractPart(work), []

    def failing(function):
        def call(*args, **options):
            begun.append(function)
            if len(begun) == 4:
                raise StorageError(f"{stage}: it is full")
            return function(*args, **options)

        return call

    class Collected(Extractor):
        def begin(self, *args):
            pending = super().begin(*args)
            return SimpleNamespace(keypoints=failing(pending.keypoints))

    match stage:
        case "read":
            monkeypatch.setattr(Images, "read_table", failing(Images.read_table))
        case "decode":
            monkeypatch.setattr(workers._Worker, "_batches", failing(workers._Worker._batches))
        case "network":
            monkeypatch.setattr(Extractor, "begin", failing(Extractor.begin))
        case "collect":
            worker._networks.extractor = Collected()
        case "write":
            monkeypatch.setattr(workers, "features_table", failing(workers.features_table))
    with pytest.raises(StorageError, match=f"^{stage}: it is full$"):
        list(worker.stream(zip(FEW.parts, FEW.rows, strict=True)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "decode", "write"))]
    for part in feature_parts(work.features):
        assert len(read_features(work.features, part).counts) == len(FEW.rows[FEW.parts.index(part)])


# -- images that are turned, and boxes, on real pixels

SIDE = 64
PIXELS = [
    "network.image_size=64",
    "network.depth=2",
    "compute.batch_images=3",
    "compute.threads=1",
    "method.landmarks=2",
]
SPOTS = {"a": (37, 21), "b": (13, 41), "c": (45, 9), "d": (21, 33)}
"""The bright spot of each image; a second one, as bright, lies in the lower right corner, outside the box."""
CORNER = (57, 57)


class BrightSpots:
    """Finds bright pixels; the descriptor is their place in the input that the network saw. It notes the boxes it was given."""

    boxes: list = []

    def scores(self, images, boxes=None):
        type(self).boxes.append(boxes)
        found = [self._xy(image) for image in images]
        if boxes is not None:
            found = [xy[((xy >= box[:2]) & (xy <= box[2:])).all(axis=1)] for xy, box in zip(found, boxes, strict=True)]
        return np.full(sum(map(len, found)), 0.5, np.float32)

    def begin(self, images, threshold, known=None):
        found = [
            Detected(
                xy, np.full(len(xy), 0.5, np.float32), (xy / SIDE).astype(np.float16), (xy / SIDE).astype(np.float16)
            )
            for xy in map(self._xy, images)
        ]
        return SimpleNamespace(keypoints=lambda: found)

    def _xy(self, image):
        return np.argwhere(image.min(axis=2) > 200)[:, ::-1].astype(np.float32)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Makes the extraction of four images on storage, of which b and d face the other way if facings are given."""
    monkeypatch.setattr(workers, "read_weights", lambda folder: {})
    BrightSpots.boxes = []
    images, facings, part = Folder.at(tmp_path / "images"), Folder.at(tmp_path / "facing"), "part-00000.parquet"
    encoded = []
    for x, y in SPOTS.values():
        picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
        for at_x, at_y in ((x, y), CORNER):
            picture[at_y, at_x] = 255
        encoded.append(cv2.imencode(".png", picture)[1].tobytes())
    boxes = pa.array([[0, 0, 50, 50], [0, 0, 50, 50], None, [0, 0, 50, 50]], pa.list_(pa.float32()))
    columns = {"image_id": list(SPOTS), "image": encoded, "box": boxes, "width": [SIDE] * 4, "height": [SIDE] * 4}
    images.write_table(part, pa.table(columns))
    facings.write_table(part, pa.table([list("dcba"), [-0.9, 0.2, -0.1, 1.0]], schema=FACINGS))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "network.pt").write_bytes(b"")

    def extracted(*overrides, turned):
        config = load_config(None, [*PIXELS, *overrides])
        method = SimpleNamespace(config=config, extractor=lambda weights, placement, number: BrightSpots())
        whole = full_selection([part], [4])
        features = Folder.at(tmp_path / f"features-{turned}")
        work = Extraction(
            method, 1, Folder.at(tmp_path / "train"), images, whole, 2.0, features, facings=Facings(facings) if turned else None
        )  # fmt: skip
        ExtractPart(calibrate(work, ThisProcess(), Pool(1)))(part, np.arange(4))
        return read_features(features, part)

    return extracted


def test_images_are_described_as_they_face_one_way_and_points_stay_in_the_frame_of_the_crop(pictures):
    plain, turned = (pictures("detection.inside_box=false", turned=turned) for turned in (False, True))
    assert plain.counts.tolist() == turned.counts.tolist() == [2] * 4
    assert sorted(map(tuple, turned.xy.tolist())) == sorted(map(tuple, plain.xy.tolist()))
    seen = turned.descriptors.astype(np.float32) * SIDE
    mirrored = np.isin(turned.image, [1, 3])  # b and d
    np.testing.assert_allclose(seen[~mirrored], turned.xy[~mirrored], atol=0.05)
    np.testing.assert_allclose(seen[mirrored, 0], SIDE - 1 - turned.xy[mirrored, 0], atol=0.05)
    np.testing.assert_allclose(seen[mirrored, 1], turned.xy[mirrored, 1], atol=0.05)


@pytest.mark.parametrize("turned", [False, True])
def test_keypoints_outside_the_box_are_dropped_and_do_not_count_in_the_calibration(pictures, turned):
    found = pictures("detection.inside_box=true", turned=turned)
    assert found.counts.tolist() == [1, 1, 2, 1]  # c has no box
    expected = [SPOTS["a"], SPOTS["b"], SPOTS["c"], CORNER, SPOTS["d"]]
    assert [tuple(point) for point in found.xy.tolist()] == expected
    left = np.concatenate(BrightSpots.boxes)[:, 0]
    np.testing.assert_array_equal(left, [0, 13 if turned else 0, np.nan, 13 if turned else 0])


def test_boxes_do_not_count_unless_they_are_asked_for(pictures):
    found = pictures("detection.inside_box=false", turned=False)
    assert found.counts.tolist() == [2] * 4
    assert BrightSpots.boxes == [None, None]
