"""The threshold of an extraction: one for all processes, from a sample that they read about once between them. No Ray."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.config import load_config
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, full_selection
from ray_kplm.methods.extractor import Detected, calibrated_threshold
from ray_kplm.methods.inputs import Inputs
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
    monkeypatch.setattr(module, "load_weights", lambda content: {})
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
