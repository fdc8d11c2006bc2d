"""The step that fits the probabilities: what it measures, and that it depends on images and seed alone. No Ray."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.methods.visibility import OWN_FEATURES, VisibilityModel
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.schemas import FACINGS
from ray_kplm.steps import calibrate_visibility
from ray_kplm.steps.calibrate_visibility import MeasurePart, VisibilityWork
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder

K, SIDE, COUNT = 4, 64, 6
PART = "part-00000.parquet"


@pytest.fixture
def work(tmp_path, small_config) -> VisibilityWork:
    """Six images of smooth noise, and a detector of random weights."""
    config = load_config(
        None, [*small_config, f"network.image_size={SIDE}", f"method.landmarks={K}", "compute.batch_images=4",
               "compute.threads=1", f"dataset={tmp_path / 'dataset'}", f"run={tmp_path / 'run'}",
               "method.mirror=partners"],
    )  # fmt: skip
    Run.start(config).save()
    rng, images = np.random.default_rng(0), Folder.at(tmp_path / "dataset/train/images")
    pictures = [cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (SIDE, SIDE)) for _ in range(COUNT)]
    columns = {
        "image_id": [str(i) for i in range(COUNT)],
        "image": [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures],
        "width": [SIDE] * COUNT,
        "height": [SIDE] * COUNT,
        "box": pa.nulls(COUNT, pa.list_(pa.float32())),
    }
    images.write_table(PART, pa.table(columns))
    splits = {"train": {"parts": [PART], "rows": [COUNT], "images": COUNT}}
    manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits}
    Folder.at(tmp_path / "dataset").write_json("manifest.json", manifest)
    Folder.at(tmp_path / "dataset").write_json("dataset.json", {"name": "noise"})
    network = Folder.at(tmp_path / "run/stage2")
    network.write_json(CHANNELS, Channels.first(np.ones(K, bool), np.array([1, 0, 2, -1], np.int16)).to_dict())
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save({"network": LandmarkNetwork(config.network, K).state_dict()}, buffer)
    network.write_bytes(NETWORK, buffer.getvalue())
    return VisibilityWork(config, network, images, None)


def measured(work, rows=range(COUNT)):
    return calibrate_visibility._unpacked(MeasurePart(work)(PART, np.array(rows)))


def test_images_are_measured_as_they_are_and_with_occluders(work):
    sample = measured(work)
    assert sample.features.shape == sample.occluded.shape == (COUNT, K, len(OWN_FEATURES) + 2 * K)
    assert sample.hidden.any()
    assert not (sample.hidden & sample.clear).any()
    assert (sample.features != sample.occluded).any(axis=(1, 2)).all()


def test_the_same_seed_hides_the_same_landmarks(work):
    one, two = measured(work), measured(work)
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(two, name), err_msg=name)


def test_images_that_face_the_other_way_are_measured_as_the_detector_sees_them(work, tmp_path):
    facings = Folder.at(tmp_path / "facing")
    facing = [1.0, -1.0, 1.0, 1.0, -1.0, 1.0]
    facings.write_table(PART, pa.table([[str(i) for i in range(COUNT)], facing], schema=FACINGS))
    faced = measured(VisibilityWork(work.config, work.network, work.images, Facings(facings)))
    plain = measured(VisibilityWork(load_without_flip(work), work.network, work.images, None))
    same = np.isclose(faced.features, plain.features, atol=1e-4).all(axis=(1, 2))
    assert same.tolist() == [value > 0 for value in facing]


def load_without_flip(work):
    return replace(work.config, stage2=replace(work.config.stage2, flip_at_test=False))


class Done:
    """In place of the executor: keeps the facts."""

    progress = type("Progress", (), {"advance": staticmethod(lambda *arguments: None)})

    def begin(self, task, title):
        pass

    def finish(self, task, facts, metrics, iteration, text=""):
        task.step.finish(**facts)


def test_the_step_writes_a_model_and_is_finished(work, monkeypatch):
    monkeypatch.setattr(
        calibrate_visibility,
        "map_parts",
        lambda worker, arguments, sample, pool, progress: [
            worker(**arguments)(part, rows) for part, rows in zip(sample.parts, sample.rows, strict=True)
        ],
    )
    task = record(Run.start(work.config), Dataset.open(work.config.dataset))["visibility"]
    assert task.step.manifest() is None
    task.step.begin()
    task.run(Done())
    assert task.step.manifest()["images"] == COUNT
    model = VisibilityModel.read(task.folder)
    assert model.weights.shape == (K, len(OWN_FEATURES) + 2 * K)
    assert model.offset.shape == (K, 2)
    task.check_output(thoroughly=True)


def test_the_number_of_images_and_the_flip_change_this_step_alone(work):
    def fingerprints(*overrides):
        config = load_config(None, [f"dataset={work.config.dataset}", f"run={work.config.run}-other", *overrides])
        return {task.path: task.fingerprint for task in record(Run.start(config), Dataset.open(config.dataset))}

    before = fingerprints("stage1.rounds=1")
    for override in ("visibility.images=7", "stage2.flip_at_test=false"):
        after = fingerprints("stage1.rounds=1", override)
        assert [path for path in before if before[path] != after[path]] == ["visibility"]
