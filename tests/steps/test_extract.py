"""The threshold of an extraction: one for all processes, from a sample that they read about once between them. No Ray."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.config import load_config
from ray_kplm.correspondence.features import read_features
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, full_selection
from ray_kplm.methods.extractor import Detected, calibrated_threshold
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.inputs import Inputs
from ray_kplm.schemas import FACINGS
from ray_kplm.steps import extract as module
from ray_kplm.steps.extract import Extraction, ExtractPart, calibration_sample
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

    def find(self, images, threshold, known):
        kept = [np.sort(peaks(int(image))[peaks(int(image)) > threshold]) for image in images]
        return [
            Detected(np.zeros((len(k), 2), np.float32), k, *[np.zeros((len(k), DIM), np.float16)] * 2) for k in kept
        ]


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Parts in the order in which they are read."""
    found: list[str] = []

    def read_inputs(images, part, rows, config):
        found.append(part)
        start = PARTS.index(part) * ROWS
        for batch in np.array_split(rows + start, range(64, len(rows), 64)):
            boxes = np.full((len(batch), 4), np.nan, np.float32)
            yield Inputs(batch, [np.eye(2, 3)] * len(batch), [str(i) for i in batch], boxes)

    monkeypatch.setattr(module, "read_inputs", read_inputs)
    monkeypatch.setattr(module, "read_weights", lambda folder: {})
    monkeypatch.setattr(module, "worker_placement", lambda compute: None)
    return found


def extraction(tmp_path, name: str, selection=WHOLE) -> Extraction:
    network = Folder.at(tmp_path / "train")
    network.write_bytes("network.pt", b"")
    method = SimpleNamespace(config=CONFIG, extractor=lambda weights, placement, number: Extractor())
    sample = calibration_sample(selection, CONFIG)
    return Extraction(method, 1, network, Folder.at(tmp_path), sample, 2.0, Folder.at(tmp_path / name))


def test_four_processes_read_the_sample_once_and_find_one_threshold(tmp_path, reads):
    """It was 255 parts for each of them."""
    work = extraction(tmp_path, "a")
    assert (work.sample.images, len(work.sample.parts)) == (500, SAMPLE_PARTS)
    thresholds = {ExtractPart(work)._threshold for _ in range(4)}
    assert sorted(reads) == work.sample.parts
    numbers = [
        PARTS.index(p) * ROWS + r for p, rows in zip(work.sample.parts, work.sample.rows, strict=True) for r in rows
    ]
    assert thresholds == {calibrated_threshold(np.concatenate([peaks(i) for i in numbers]), 500, 6.0)}


def test_processes_that_begin_at_once_find_the_threshold_of_one(tmp_path, reads):
    work, alone = extraction(tmp_path, "a"), extraction(tmp_path, "b")
    with ThreadPoolExecutor(4) as processes:
        thresholds = set(processes.map(lambda _: ExtractPart(work)._threshold, range(4)))
    assert set(reads) == set(work.sample.parts)
    assert thresholds == {ExtractPart(alone)._threshold}


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
        ExtractPart(work)
    monkeypatch.setattr(Extractor, "scores", score)
    before = reads[:-1]  # the last one was not finished
    reads.clear()
    ExtractPart(work)
    assert sorted(before + reads) == work.sample.parts


def test_extraction_leaves_features_and_nothing_else(tmp_path, reads, monkeypatch):
    few = full_selection(PARTS[:3], [40, 40, 40])
    work = extraction(tmp_path, "a", few)
    for part in few.parts:
        work.images.write_table(part, pa.table({"width": [90] * 40, "height": [60] * 40}))

    def map_parts(worker, arguments, selection, pool, progress):
        workers = [worker(**arguments) for _ in range(2)]
        items = enumerate(zip(selection.parts, selection.rows, strict=True))
        return [workers[i % 2](part, rows) for i, (part, rows) in items]

    monkeypatch.setattr(module, "map_parts", map_parts)
    facts = module.extract(work, few)
    assert facts["images"] == 120
    assert facts["detected_per_image"] == pytest.approx(6.0)
    assert work.features.walk() == PARTS[:3]
    assert not (work.features / "calibration").exists()


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

    def find(self, images, threshold, known):
        return [
            Detected(
                xy, np.full(len(xy), 0.5, np.float32), (xy / SIDE).astype(np.float16), (xy / SIDE).astype(np.float16)
            )
            for xy in map(self._xy, images)
        ]

    def _xy(self, image):
        return np.argwhere(image.min(axis=2) > 200)[:, ::-1].astype(np.float32)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Makes the extraction of four images on storage, of which b and d face the other way if facings are given."""
    monkeypatch.setattr(module, "read_weights", lambda folder: {})
    monkeypatch.setattr(module, "worker_placement", lambda compute: None)
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

    def extract(*overrides, turned):
        config = load_config(None, [*PIXELS, *overrides])
        method = SimpleNamespace(config=config, extractor=lambda weights, placement, number: BrightSpots())
        whole = full_selection([part], [4])
        features = Folder.at(tmp_path / f"features-{turned}")
        work = Extraction(
            method, 1, Folder.at(tmp_path / "train"), images, whole, 2.0, features, facings=Facings(facings) if turned else None
        )  # fmt: skip
        ExtractPart(work)(part, np.arange(4))
        return read_features(features, part)

    return extract


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
