"""`kplm suggest` on runs whose network is untrained: what is written can be labelled and is read again. No Ray."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ray_kplm.analysis.suggest import describe
from ray_kplm.analysis.suggestion_pool import DatasetPool, FolderPool, file_path, file_paths
from ray_kplm.cli.main import main
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.stored import export
from ray_kplm.labels.reading import read_labels
from ray_kplm.labels.writing import write_coco
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.predictors import OneWayPredictor
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, point_folder, write_point_set
from ray_kplm.storage import Folder


def called(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def suggested(capsys, *words) -> dict:
    code, out, err = called(capsys, "suggest", *words, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four pictures of several kinds, one that is turned by its EXIF, and one that is broken."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in {
        "a.png": (60, 40),
        "deep/a.png": (50, 50),
        "c d#1.bmp": (40, 60),
        "turned.jpg": (30, 60),
    }.items():
        pixels = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), size, interpolation=cv2.INTER_LINEAR)
        exif = Image.Exif()
        if name == "turned.jpg":
            exif[0x0112] = 6
        Image.fromarray(pixels).save(folder / name, **({"exif": exif} if name.endswith("jpg") else {}))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return folder


def test_training_images_are_written_as_they_are_stored_with_their_landmarks(noise_run, tmp_path, capsys):
    out = tmp_path / "out"
    figures = suggested(capsys, noise_run.folder, out, "--count", "3")
    assert (figures["candidates"], figures["left_out"], figures["by"]) == (5, 0, "diverse")
    assert len(figures["images"]) == 3
    stored = noise_run.config.dataset
    dataset = Dataset.open(stored)
    contents = {
        row["image_id"]: row["image"]
        for part in dataset.parts("train")
        for row in dataset.images("train").read_table(part).to_pylist()
    }
    for name, path in figures["images"].items():
        assert (out / path).read_bytes() == contents[name]
    labels = read_labels(out / "coco.json")
    assert labels.images == tuple(str(out / path) for path in figures["images"].values())
    assert labels.names == tuple(f"landmark_{k}" for k in range(4))
    found = LandmarkDetector.load(noise_run.folder.path, device="cpu").predict(list(labels.images))
    there = np.isfinite(labels.xy)
    np.testing.assert_allclose(labels.xy[there], np.stack([one.xy for one in found])[there], atol=2e-3)
    tasks = json.loads((out / "label_studio/tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        f"/data/local-files/?d={path}" for path in figures["images"].values()
    ]
    assert all(task["predictions"] for task in tasks)
    assert Image.open(out / "suggested.png").width >= 3 * 200
    assert f"kplm adapt {noise_run.folder} {out}/coco.json" in "\n".join(figures["go_on"])


def test_all_images_if_there_are_no_more_than_asked_for(noise_run, tmp_path, capsys):
    assert len(suggested(capsys, noise_run.folder, tmp_path / "out")["images"]) == 5


def test_images_that_are_labelled_are_left_out(noise_run, tmp_path, capsys):
    first = suggested(capsys, noise_run.folder, tmp_path / "first", "--count", "2")["images"]
    labels = tmp_path / "first" / "coco.json"
    more = suggested(capsys, noise_run.folder, tmp_path / "more", "--count", "2", "--labeled", labels)
    assert (more["candidates"], more["left_out"]) == (3, 2)
    assert not set(first) & set(more["images"])
    table = tmp_path / "mine.csv"
    table.write_text("image,nose_x,nose_y\n" + "".join(f"{name},1,1\n" for name in more["images"]))
    last = suggested(capsys, noise_run.folder, tmp_path / "last", "--labeled", labels, table)
    assert set(last["images"]) | set(first) | set(more["images"]) == {
        f"train/{n}" for n in ("0-0", "0-1", "0-2", "1-0", "1-1")
    }
    code, _, err = called(
        capsys,
        "suggest",
        noise_run.folder,
        tmp_path / "none",
        "--labeled",
        labels,
        table,
        tmp_path / "last" / "coco.json",
    )
    assert code == 3
    assert "all 5 images are labelled" in err


def test_new_images_come_from_a_folder(noise_run, tmp_path, photos, capsys):
    out = tmp_path / "out"
    figures = suggested(capsys, noise_run.folder, out, "--images", photos)
    assert figures["images"] == {
        "a.png": "images/a.png", "c d#1.bmp": "images/c d_1.bmp.jpg", "deep/a.png": "images/deep/a.png",
        "turned.jpg": "images/turned.jpg",
    }  # fmt: skip
    assert [name for name, _ in figures["rejected"]] == ["broken.jpg"]
    assert (out / "images/a.png").read_bytes() != b""
    assert Image.open(out / "images/turned.jpg").size == (60, 30)
    labels = read_labels(out / "coco.json")
    assert labels.rejected == ()
    assert len(labels) == 4


def test_an_exported_detector_chooses_new_images_only(noise_run, tmp_path, photos, capsys):
    export(noise_run, Folder.at(tmp_path / "exported"))
    figures = suggested(capsys, tmp_path / "exported", tmp_path / "out", "--images", photos, "--count", "2")
    assert len(figures["images"]) == 2
    code, _, err = called(capsys, "suggest", tmp_path / "exported", tmp_path / "other")
    assert code != 0
    assert "--images" in err


def test_points_of_an_edit_and_own_points_are_what_is_labelled(noise_run, tmp_path, capsys):
    layout = Layout.of("beast", [0, 1], ["head", "tail"])
    write_point_set(point_folder(noise_run.folder, EDITED), PointSet.of_groups(layout, [(0, 1), (2,)], 4))
    suggested(capsys, noise_run.folder, tmp_path / "edited", "--count", "2")
    assert read_labels(tmp_path / "edited/coco.json").names == ("head", "tail")
    suggested(capsys, noise_run.folder, tmp_path / "landmarks", "--count", "2", "--points", "landmarks")
    assert len(read_labels(tmp_path / "landmarks/coco.json").names) == 4
    suggested(capsys, noise_run.folder, tmp_path / "own", "--count", "2", "--names", "nose, left eye")
    config = (tmp_path / "own/label_studio/config.xml").read_text()
    assert '<Label value="nose"/>' in config
    assert '<Label value="left eye"/>' in config
    assert "landmark_0" not in config
    tasks = json.loads((tmp_path / "own/label_studio/tasks.json").read_text())
    assert [task["predictions"][0]["result"] for task in tasks] == [[], []]
    rows = json.loads((tmp_path / "own/coco.json").read_text())
    assert [row["num_keypoints"] for row in rows["annotations"]] == [0, 0]
    assert rows["categories"][0]["keypoints"] == ["nose", "left eye"]


def test_labels_that_may_have_been_corrected_are_not_overwritten(noise_run, tmp_path, capsys):
    suggested(capsys, noise_run.folder, tmp_path / "out")
    before = (tmp_path / "out/coco.json").read_bytes()
    code, _, err = called(capsys, "suggest", noise_run.folder, tmp_path / "out")
    assert code == 4
    assert "perhaps corrected ones" in err
    assert (tmp_path / "out/coco.json").read_bytes() == before


def test_a_bad_choice_is_refused_before_the_network_is_loaded(noise_run, tmp_path, capsys):
    for words, said in (
        (["--names", "a,a"], "give different names"),
        (["--points", "nose5"], "has no such points"),
        (["--images", tmp_path / "nowhere"], "no such file or folder"),
        (["--labeled", tmp_path / "no.json"], "no such file or folder"),
    ):
        code, _, err = called(capsys, "suggest", noise_run.folder, tmp_path / "out", *words)
        assert code in (2, 3)
        assert said in err
    assert not (tmp_path / "out").exists()


def test_images_are_described_as_they_are_read(noise_run, tmp_path, photos):
    dataset = Dataset.open(noise_run.config.dataset)
    whole = describe(DatasetPool(dataset), np.arange(5), noise_run, "cpu")
    part = describe(DatasetPool(dataset), np.array([1, 4]), noise_run, "cpu")
    assert whole.rows.tolist() == [0, 1, 2, 3, 4]
    assert part.rows.tolist() == [1, 4]
    assert np.linalg.norm(part.features[0] - part.features[1]) > 0
    assert not whole.turned.any()
    assert ((whole.uncertainty >= 0) & (whole.uncertainty <= 1)).all()
    assert describe(FolderPool(str(photos)), np.arange(5), noise_run, "cpu").rows.tolist() == [0, 2, 3, 4]


def test_images_that_face_the_other_way_are_described_as_if_turned(noise_run):
    dataset = Dataset.open(noise_run.config.dataset)
    batch = next(DatasetPool(dataset).batches(np.arange(3), noise_run.config))
    from ray_kplm.detectors.stored import landmark_predictor
    from ray_kplm.methods.inputs import worker_placement

    alone = landmark_predictor(noise_run)(worker_placement(noise_run.config.compute))
    facing = np.array([0.5, -0.5, 0.5], np.float32)
    one_way = OneWayPredictor(alone, lambda *_: facing)  # type: ignore[arg-type]
    boxes = np.zeros((3, 4), np.float32)
    seen = one_way.describe(batch.images, boxes)
    assert seen.turned.tolist() == [False, True, False]
    turned = batch.images.copy()
    turned[1] = turned[1, :, ::-1]
    expected = alone.describe(turned)
    np.testing.assert_allclose(seen.descriptors, expected.descriptors, rtol=1e-5)
    np.testing.assert_allclose(seen.xy, expected.xy, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b.png", "a/b.png"),
        ("../a.jpg", "a.jpg"),
        ("/abs/a.JPG", "abs/a.JPG"),
        ("clip.mp4#frame=3", "clip.mp4_frame_3.jpg"),
        ("a?b%c.png", "a_b_c.png"),
        ("image 7", "image 7.jpg"),
    ],
)
def test_paths_of_images_are_harmless(name, path):
    assert file_path(name, (".jpg", ".png")) == path
    assert path in file_paths(name)


def test_a_label_file_that_was_corrected_is_read_with_its_images(noise_run, tmp_path, capsys):
    figures = suggested(capsys, noise_run.folder, tmp_path / "out", "--count", "2")
    labels = read_labels(tmp_path / "out/coco.json")
    moved = labels.xy + 1.0
    corrected = type(labels)(labels.names, labels.images, moved, labels.visible, labels.boxes)
    write_coco(corrected, dict.fromkeys(labels.images, (48, 64)), Folder.at(tmp_path / "out"), "coco.json")
    again = read_labels(tmp_path / "out/coco.json")
    np.testing.assert_allclose(again.xy, moved, atol=1e-3)
    assert [image.removeprefix(f"{tmp_path}/out/") for image in again.images] == list(figures["images"].values())
