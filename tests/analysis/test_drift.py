"""`kplm drift` on a run with an untrained network. No Ray."""

import io
import json
import os
import shutil

import cv2
import numpy as np
import pytest
import torch

from ray_kplm.analysis.drift import REFERENCE, DriftOptions, drift
from ray_kplm.analysis.drift_choices import MTIME, NAME
from ray_kplm.cli.drift import DRIFT
from ray_kplm.cli.main import main
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import DATASET, Dataset, IngestOptions, dataset_folder
from ray_kplm.datasets.listing import list_source
from ray_kplm.errors import DataError
from ray_kplm.imaging.synthetic.category import render, write_category
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.storage import Folder

K, IMAGES = 4, 60


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_config):
    """A dataset of rendered images and a run on it, whose network is untrained."""
    folder = tmp_path_factory.mktemp("drift")
    write_category(folder / "source", IMAGES + 12, size=64, test_share=12 / (IMAGES + 12))
    listing = list_source(folder / "source", IngestOptions())
    root = dataset_folder(Folder.at(folder / "dataset"))
    root.write_json(DATASET, {**listing.meta, "source": "", "fingerprint": "made"})
    splits = {}
    for split, entries in listing.splits.items():
        tables = listing.read_part(entries)
        (root / split / "images").write_table("part-00000.parquet", tables.images)
        (root / split / "landmarks").write_table("part-00000.parquet", tables.landmarks)
        count = tables.images.num_rows
        splits[split] = {"parts": ["part-00000.parquet"], "rows": [count], "images": count}
    root.publish({"kind": "dataset", "fingerprint": "made", "splits": splits, "landmarks": 14, "image_size": 64}, ())
    overrides = [*small_config, f"method.landmarks={K}", f"dataset={folder / 'dataset'}", f"run={folder / 'run'}"]
    run = Run.start(load_config(None, overrides)).save()
    torch.manual_seed(3)
    buffer = io.BytesIO()
    torch.save({"network": LandmarkNetwork(run.config.network, K).state_dict()}, buffer)
    step = run.step("stage2", "landmarks", {}, {})
    step.folder.write_json(CHANNELS, Channels.first(np.ones(K, bool)).to_dict())
    step.folder.write_bytes(NETWORK, buffer.getvalue())
    step.finish()
    return folder


def pictures(folder, count, change=lambda image, number: image):
    folder.mkdir()
    for number in range(count):
        image = render(0, 500 + number, 64).image[:, :, ::-1]
        cv2.imwrite(str(folder / f"photo{number}.png"), change(image, number))
    return str(folder)


def blurred(image, number):
    return cv2.GaussianBlur(image, (0, 0), 2)


def test_images_of_the_same_category_are_no_drift(place, capsys):
    assert main(["-q", "drift", str(place / "run"), str(place / "dataset"), "--split", "test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["images"], found["training_images"]) == ("no drift", 12, IMAGES)
    assert {one["name"] for one in found["changes"]} >= {"sharpness", "peaks", "motion_error", "layout_distance"}
    assert len(found["worst"]) == 10


def test_blurred_images_are_drift_and_the_answer_says_so(place, tmp_path, capsys):
    new = pictures(tmp_path / "new", 14, blurred)
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG and no more")
    page, sheet = tmp_path / "drift.html", tmp_path / "worst.png"
    command = ["-q", "drift", str(place / "run"), new, "--html", str(page), "--worst", str(sheet), "--show", "5"]
    assert main(command) == DRIFT
    text = capsys.readouterr().out
    assert "drift: 14 images are not like the training images" in text
    assert any(line.startswith("sharpness, log") and "sd lower" in line for line in text.splitlines())
    assert "1 image could not be used" in text
    assert "broken.png" in text
    assert cv2.imread(str(sheet)).shape[1] == 5 * 160
    html = page.read_text()
    assert html.count("<img ") == 5 + 12
    assert "http" not in html.replace("http-equiv", "")


@pytest.mark.parametrize("kind", [NAME, MTIME])
def test_the_change_is_dated(place, tmp_path, kind):
    new = pictures(tmp_path / "new", 40, lambda image, number: blurred(image, number) if number >= 25 else image)
    for number in range(40):
        os.utime(tmp_path / "new" / f"photo{number}.png", (1e9 + 60 * number,) * 2)
    report = drift(Run.open(str(place / "run")), [new], DriftOptions(time=kind), device="cpu")
    assert report.drift.is_drift
    assert report.new["image_id"][report.since.image].as_py() == "photo25.png"
    assert (report.since.before, report.since.after) == (25, 15)


def test_one_image_has_a_score_and_no_trend(place, tmp_path, capsys):
    new = pictures(tmp_path / "new", 1, blurred)
    assert main(["-q", "drift", str(place / "run"), f"{new}/photo0.png"]) == 0
    assert "too few to say whether there is a trend" in capsys.readouterr().out


def test_the_reference_is_kept_and_used_without_the_dataset(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    new = pictures(tmp_path / "new", 3)
    run = Run.open(str(tmp_path / "run"))
    with_dataset = drift(run, [new], device="cpu")
    assert run.manifest(REFERENCE)["crop_size"] == 64
    alone = Run(run.folder, load_config(None, [*overrides(run), "dataset=nowhere"]))
    assert drift(alone, [new], device="cpu").drift.p == with_dataset.drift.p
    shutil.rmtree(tmp_path / "run" / "drift")
    with pytest.raises(DataError, match=r"no finished dataset.*drift is against the training images"):
        drift(alone, [new], device="cpu")


def overrides(run):
    return [f"{key}={json.dumps(value)}" for key, value in run.config.flat().items()]


def test_no_image_that_can_be_used_is_an_error_of_one_line(place, tmp_path, capsys):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG and no more")
    assert main(["-q", "drift", str(place / "run"), str(tmp_path / "new")]) == 3
    assert "broken.png" in capsys.readouterr().err


def test_the_dataset_that_the_tests_made_is_one(place):
    assert Dataset.open(place / "dataset").count("train") == IMAGES
