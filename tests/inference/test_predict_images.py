"""Landmarks of new images as files: names, frames, rejected images, resuming. The detector is untrained."""

import csv
import io
import json
import os
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sleap_io
import torch
from PIL import Image

from ray_kplm import LandmarkDetector, schemas
from ray_kplm.cli.main import main
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.detectors.stored import export
from ray_kplm.errors import ConfigError, DataError, RunError
from ray_kplm.inference.export.formats import FORMATS
from ray_kplm.inference.images import PredictOptions, predict_images
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.runtime.map_parts import RayWorkers
from ray_kplm.steps.ingest import ingest
from ray_kplm.storage import Folder
from ray_kplm.verify import verify

K = 3
OVERRIDES = ["network.image_size=32", f"method.landmarks={K}", "compute.batch_images=4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_config) -> Run:
    """A run with a finished stage 2."""
    run = Run.start(load_config(None, [*small_config, *OVERRIDES, f"run={tmp_path_factory.mktemp('runs') / 'run'}"]))
    run.save()
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save({"network": LandmarkNetwork(run.config.network, K).state_dict()}, buffer)
    step = run.step("stage2", "landmarks", {}, {})
    channels = Channels.first(np.ones(K, bool))
    step.folder.write_json(CHANNELS, channels.to_dict())
    step.folder.write_bytes(NETWORK, buffer.getvalue())
    step.finish()
    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """10 images in two folders, two broken ones, and a text file."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(10):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        smooth = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        smooth.resize((60 - i, 40 + i), Image.Resampling.BICUBIC).save(path)
    (folder / "a/cut.png").write_bytes(path.read_bytes()[:500])
    (folder / "b/empty.jpg").write_bytes(b"")
    (folder / "read.me").write_text("hello")
    return folder


def tree(path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def rows(out) -> dict[str, dict]:
    tables = [pq.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    assert all(table.schema.equals(schemas.SOURCE_LANDMARKS) for table in tables)
    return {row["image_id"]: row for row in pa.concat_tables(tables).to_pylist()}


@pytest.fixture(scope="module")
def predicted(run, pictures, tmp_path_factory):
    """Landmarks of `pictures`, not to be written to: their folder, the report, the progress calls."""
    out, calls = tmp_path_factory.mktemp("predicted") / "out", []
    options = PredictOptions(part_images=5, csv=True, coco=True)
    report = predict_images(run, pictures, out, options, progress=lambda *call: calls.append(call))
    return out, report, calls


def test_predictions_have_the_documented_files(predicted):
    assert tree(predicted[0]) == [
        "coco.json", "landmarks.csv", "manifest.json", *(f"part-0000{i}.parquet" for i in range(3)), "rejected.parquet",
    ]  # fmt: skip


def test_progress_counts_the_parts(predicted):
    assert [text for _, text in predicted[2]] == ["1/3 parts", "2/3 parts", "3/3 parts"]


def test_other_formats_are_added_without_predicting_again(run, pictures, predicted, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    exif = Image.Exif()
    exif[0x0112] = 6  # the upright picture is 20 wide and 40 high
    Image.open(pictures / "b" / "9.png").resize((40, 20)).save(tmp_path / "pictures" / "turned, ö.jpg", exif=exif)
    out, options = tmp_path / "out", PredictOptions(part_images=5, to=("coco",))
    predict_images(run, tmp_path / "pictures", out, options)
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    options = PredictOptions(part_images=5, to=tuple(FORMATS), names=("a", "b", "c"))
    again = predict_images(run, tmp_path / "pictures", out, options)
    assert again.existed
    assert again.notes == ()
    assert written == {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    outputs = set(json.loads((out / "manifest.json").read_text())["outputs"])
    assert {*tree(out)} - {"manifest.json"} == outputs
    assert {"coco.json", "landmarks.csv", "landmarks.slp", "landmarks.nwb", "dlc/landmarks.h5", "yolo/data.yaml",
            "label_studio/tasks.json"} < outputs  # fmt: skip
    assert verify(Folder.at(out)).findings == []
    (expected,) = LandmarkDetector.load(run.folder.path).predict([tmp_path / "pictures" / "turned, ö.jpg"])
    coco = json.loads((out / "coco.json").read_text())
    (image,) = [image for image in coco["images"] if image["file_name"] == "turned, ö.jpg"]
    assert (image["width"], image["height"]) == (20, 40)
    (one,) = [one for one in coco["annotations"] if one["image_id"] == image["id"]]
    points = np.reshape(one["keypoints"], (K, 3))
    is_inside = points[:, 2] > 0
    assert is_inside.any()
    np.testing.assert_allclose(points[is_inside, :2], np.maximum(expected.xy[is_inside], 0), atol=0.01)
    labels = sleap_io.load_slp(str(out / "landmarks.slp"), open_videos=False)
    (frame,) = [frame for frame in labels if frame.video.filename[frame.frame_idx] == "turned, ö.jpg"]
    assert tuple(frame.video.shape) == (1, 40, 20, 3)
    np.testing.assert_allclose(frame.instances[0].numpy(), expected.xy, atol=0.01)
    (line,) = (out / "yolo" / "labels" / "turned, ö.txt").read_text().splitlines()
    shares = np.array(line.split()[5:], float).reshape(K, 3)
    np.testing.assert_allclose(shares[is_inside, :2] * [20, 40] - 0.5, expected.xy[is_inside], atol=0.01)


def test_names_on_standard_input_are_a_source(run, pictures, monkeypatch, capsys, tmp_path):
    names = [pictures / "a" / "0.png", pictures / "b" / "1.png", pictures / "b" / "gone.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{name}\n" for name in names)))
    code = main(
        ["predict", run.folder.path, "-", str(tmp_path / "out"), "--to", "csv,yolo", "compute.threads=1", "--json"]
    )
    figures = json.loads(capsys.readouterr().out)
    assert (code, figures["images"], figures["formats"]) == (0, 2, ["csv", "yolo"])
    assert figures["rejected"] == {"no such file or folder": 1}
    assert {"landmarks.csv", "yolo/labels/a/0.txt", "yolo/labels/b/1.txt"} < set(tree(tmp_path / "out"))


def test_formats_and_names_that_cannot_be_used_are_refused_before_anything_is_predicted(run, pictures, tmp_path):
    with pytest.raises(ConfigError, match="--to sql: no such format"):
        predict_images(run, pictures, tmp_path / "out", PredictOptions(to=("sql",)))
    with pytest.raises(ConfigError, match="the detector has 3 landmarks: give 3 different names"):
        predict_images(run, pictures, tmp_path / "out", PredictOptions(names=("a", "b")))
    assert not (tmp_path / "out").exists()


def test_broken_images_are_counted_and_listed(predicted):
    out, report, _ = predicted
    assert (report.images, report.rejected, report.existed) == (10, {"truncated": 1, "empty file": 1}, False)
    rejected = pq.read_table(out / "rejected.parquet").to_pylist()
    assert sorted(row["source"] for row in rejected) == ["a/cut.png", "b/empty.jpg"]


def test_predictions_are_those_of_the_detector(run, pictures, predicted):
    found = rows(predicted[0])
    names = sorted(found)
    assert len(names) == 10
    for name, expected in zip(
        names, LandmarkDetector.load(run.folder.path).predict(pictures / n for n in names), strict=True
    ):
        np.testing.assert_allclose(found[name]["xy"], expected.xy, atol=1e-3)
        np.testing.assert_allclose(found[name]["confidence"], expected.confidence, atol=1e-4)
        with Image.open(pictures / name) as image:
            assert (found[name]["width"], found[name]["height"]) == image.size


def test_csv_and_coco_hold_the_same_landmarks(predicted):
    out, _, _ = predicted
    found = rows(out)
    lines = list(csv.DictReader((out / "landmarks.csv").open()))
    assert len(lines) == 10 * K
    assert float(lines[0]["x"]) == pytest.approx(found[lines[0]["image_id"]]["xy"][0][0], abs=1e-3)
    coco = json.loads((out / "coco.json").read_text())
    assert [len(coco[part]) for part in ("images", "annotations", "categories")] == [10, 10, 1]


def test_predicting_again_writes_no_part(run, pictures, predicted):
    out, report, _ = predicted
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    again = predict_images(run, pictures, out, PredictOptions(part_images=5, csv=True, coco=True))
    assert again.existed
    assert (again.images, again.rejected) == (report.images, report.rejected)
    assert written == {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


def test_an_interrupted_prediction_continues_with_the_missing_parts(run, pictures, tmp_path):
    options = PredictOptions(part_images=4)
    predict_images(run, pictures, tmp_path / "whole", options)
    predict_images(run, pictures, tmp_path / "out", options)
    # The state after a killed driver: two of three parts, rejected images of the first part in their own file.
    out = Folder.at(tmp_path / "out")
    claim = {key: out.read_json("manifest.json")[key] for key in ("step", "fingerprint", "reads", "inputs")}
    out.write_json("claim.json", {**claim, "began": 0})
    (out / ".rejected").write_table("part-00000.parquet", out.read_table("rejected.parquet").slice(0, 1))
    for name in ("manifest.json", "rejected.parquet", "part-00001.parquet"):
        os.remove(tmp_path / "out" / name)
    before = (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns
    predict_images(run, pictures, tmp_path / "out", options)
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns == before
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    for name in ("part-00000.parquet", "part-00001.parquet", "part-00002.parquet"):
        assert pq.read_table(tmp_path / "out" / name).equals(pq.read_table(tmp_path / "whole" / name))


def test_landmarks_of_boxes_are_in_source_pixels(run, pictures, tmp_path):
    boxes = "image,x0,y0,x1,y1\na/0.png,5,5,45,35\na/0.png,20,10,50,40\nb/1.png,0,0,50,40\nb/3.png,9,9,9,20\n"
    (tmp_path / "boxes.csv").write_text(boxes)
    options = PredictOptions(boxes=str(tmp_path / "boxes.csv"), margin=0.1, coco=True)
    report = predict_images(run, pictures, tmp_path / "boxed", options)
    found = rows(tmp_path / "boxed")
    assert sorted(found) == ["a/0.png#0", "a/0.png#1", "b/1.png"]
    assert report.rejected["box without area"] == 1
    sizes = {"a/0.png": (60, 40), "b/1.png": (59, 41)}
    assert all((row["width"], row["height"]) == sizes[name.partition("#")[0]] for name, row in found.items())
    detector = LandmarkDetector.load(run.folder.path)
    for name, box in (("a/0.png#1", [20, 10, 50, 40]), ("b/1.png", [0, 0, 50, 40])):
        (expected,) = detector.predict([pictures / name.partition("#")[0]], [box], 0.1)
        np.testing.assert_allclose(found[name]["xy"], expected.xy, atol=1e-3)
    coco = json.loads((tmp_path / "boxed" / "coco.json").read_text())
    assert [(image["file_name"], image["width"]) for image in coco["images"]] == [("a/0.png", 60), ("b/1.png", 59)]
    assert [one["image_id"] for one in coco["annotations"]] == [1, 1, 2]


def test_workers_of_ray_find_the_same(run, pictures, predicted, tmp_path, ray_cluster):
    report = predict_images(run, pictures, tmp_path / "out", PredictOptions(part_images=5), workers=RayWorkers())
    assert report.images == 10
    assert sum(report.rejected.values()) == 2
    found, expected = rows(tmp_path / "out"), rows(predicted[0])
    assert found.keys() == expected.keys()
    for name, row in found.items():
        np.testing.assert_allclose(row["xy"], expected[name]["xy"], atol=1e-3)


def test_landmarks_of_a_dataset_are_in_source_pixels(ray_cluster, run, pictures, predicted, tmp_path):
    ingest(pictures, tmp_path / "dataset", IngestOptions(part_images=4, test_share=0.3, size=200))
    predict_images(run, tmp_path / "dataset", tmp_path / "all")
    of_images, of_dataset = rows(predicted[0]), rows(tmp_path / "all")
    assert of_dataset.keys() == of_images.keys()
    for name, row in of_dataset.items():
        np.testing.assert_allclose(row["xy"], of_images[name]["xy"], atol=1e-3)
    predict_images(run, tmp_path / "dataset", tmp_path / "test", PredictOptions(split="test"))
    assert 0 < len(rows(tmp_path / "test")) < 10


def test_sizes_of_the_pictures_of_a_dataset_are_known_unless_it_is_of_an_earlier_version(
    ray_cluster, run, pictures, tmp_path
):
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\na/0.png,5,5,45,35\nb/1.png,0,0,50,40\n")
    ingest(pictures, tmp_path / "dataset", IngestOptions(test_share=0.0, boxes=str(tmp_path / "boxes.csv")))
    predict_images(run, tmp_path / "dataset", tmp_path / "new", PredictOptions(coco=True))
    assert {(row["width"], row["height"]) for row in rows(tmp_path / "new").values()} == {(60, 40), (59, 41)}
    part = Folder.at(tmp_path / "dataset" / "train" / "images")
    table = part.read_table("part-00000.parquet")
    part.write_table("part-00000.parquet", table.drop_columns(["source_width", "source_height"]))
    predict_images(run, tmp_path / "dataset", tmp_path / "old", PredictOptions(coco=True))
    for image in json.loads((tmp_path / "old" / "coco.json").read_text())["images"]:
        assert image["width"] > 0
        assert image["height"] > 0


def test_files_patterns_and_folders_can_be_named_together(run, pictures, predicted, tmp_path):
    expected = rows(predicted[0])
    one = predict_images(run, pictures / "a" / "0.png", tmp_path / "one")
    assert (one.images, list(rows(tmp_path / "one"))) == (1, ["0.png"])
    np.testing.assert_allclose(rows(tmp_path / "one")["0.png"]["xy"], expected["a/0.png"]["xy"], atol=1e-3)
    several = [pictures / "b" / "1.png", f"{pictures}/a/[02].png", pictures / "b" / "gone.png", pictures / "read.me"]
    report = predict_images(run, several, tmp_path / "several")
    assert list(rows(tmp_path / "several")) == ["a/0.png", "a/2.png", "b/1.png"]
    assert report.rejected == {"no such file or folder": 1, "not an image": 1}
    mixed = predict_images(
        run, [pictures / "a", pictures / "b" / "3.png", pictures / "a" / "0.png"], tmp_path / "mixed"
    )
    assert (mixed.images, mixed.rejected) == (6, {"truncated": 1})
    assert sorted(rows(tmp_path / "mixed")) == ["a/0.png", "a/2.png", "a/4.png", "a/6.png", "a/8.png", "b/3.png"]
    with pytest.raises(DataError, match="no file matches this pattern"):
        predict_images(run, f"{pictures}/*.webp", tmp_path / "other")
    with pytest.raises(DataError, match="no image found"):
        predict_images(run, [pictures / "x.png", pictures / "y.png"], tmp_path / "other")
    (tmp_path / "images.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="a Parquet file stands alone"):
        predict_images(run, [pictures / "a", tmp_path / "images.parquet"], tmp_path / "other")
    with pytest.raises(RunError, match="is a file; the last path is the folder"):
        predict_images(run, [pictures / "a"], pictures / "b" / "1.png")


def test_the_detector_of_an_exported_folder_predicts(run, pictures, predicted, tmp_path):
    export(run, Folder.at(tmp_path / "detector"))
    predict_images(Run.open(tmp_path / "detector"), pictures, tmp_path / "out")
    found, expected = rows(tmp_path / "out"), rows(predicted[0])
    assert found.keys() == expected.keys()
    for name, row in found.items():
        np.testing.assert_allclose(row["xy"], expected[name]["xy"], atol=1e-3)


def test_other_options_for_the_same_folder_are_refused(run, pictures, predicted):
    with pytest.raises(RunError, match=r"part_images was 5, is 7\. Predict into another folder"):
        predict_images(run, pictures, predicted[0], PredictOptions(part_images=7))


def test_a_source_target_or_run_that_cannot_be_used_is_refused(run, pictures, small_config, tmp_path):
    with pytest.raises(RunError, match="holds no predictions"):
        predict_images(run, pictures, pictures)
    with pytest.raises(DataError, match="applies only to a dataset made by"):
        predict_images(run, pictures, tmp_path / "other", PredictOptions(split="test"))
    with pytest.raises(DataError, match="no such file or folder"):
        predict_images(run, tmp_path / "nothing", tmp_path / "other")
    with pytest.raises(ConfigError, match=r"only compute\.\*"):
        predict_images(run, pictures, tmp_path / "other", config=load_config(None, [f"run={run.config.run}"]))
    unfinished = Run.start(load_config(None, [*small_config, *OVERRIDES, f"run={tmp_path / 'unfinished'}"]))
    with pytest.raises(RunError, match="stage2 is not finished"):
        predict_images(unfinished, pictures, tmp_path / "other")
    assert not (tmp_path / "other").exists()
