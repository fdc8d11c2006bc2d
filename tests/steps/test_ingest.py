"""The ingest step: the files that it leaves, its report, and how it continues after an interruption."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm import schemas
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.landmark_arrays import landmark_arrays
from ray_kplm.datasets.listing import list_source
from ray_kplm.errors import DataError, RunError
from ray_kplm.steps.ingest import _fingerprint, ingest
from ray_kplm.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_cluster")

OPTIONS = IngestOptions(part_images=4, test_share=0.25, size=48)


def write_source(folder: Path) -> Path:
    """Write 20 images in two folders, 2 broken ones, and a text file."""
    generator = np.random.default_rng(0)
    for i in range(20):
        path = folder / "ab"[i % 2] / f"{i // 2:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)
    (folder / "a/cut.png").write_bytes(path.read_bytes()[:500])
    (folder / "b/empty.jpg").write_bytes(b"")
    (folder / "readme.txt").write_text("hello")
    return folder


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source")


def tree(path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def times(path) -> dict[str, int]:
    return {name: (path / name).stat().st_mtime_ns for name in tree(path) if "/part-" in name}


def contents(path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in tree(path) if name.endswith(".parquet")}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """A dataset made with OPTIONS of `write_source`, not to be written to: its folder, its report, its progress calls."""
    folder, calls = tmp_path_factory.mktemp("ingested"), []
    source = write_source(folder / "source")
    report = ingest(source, folder / "dataset", OPTIONS, progress=lambda *call: calls.append(call))
    return folder / "dataset", report, calls


def test_a_dataset_has_the_documented_files(ingested):
    target, _, _ = ingested
    dataset = Dataset.open(target)
    expected = ["dataset.json", "manifest.json", "rejected.parquet"]
    expected += [f"{split}/images/{part}" for split in ("test", "train") for part in dataset.parts(split)]
    assert tree(target) == sorted(expected)


def test_a_report_counts_images_and_what_was_rejected(ingested):
    target, report, _ = ingested
    dataset = Dataset.open(target)
    assert report.images == {split: dataset.count(split) for split in ("train", "test")}
    assert sum(report.images.values()) == 20
    assert dataset.count("test") > 0
    assert dataset.manifest["rejected"] == 2
    assert dataset.manifest["image_size"] == 48
    assert dataset.manifest["landmarks"] == 0
    assert report.rejected == {"truncated": 1, "empty file": 1}
    assert "2 rejected (1 truncated, 1 empty file), 1 other files" in str(report)


def test_progress_rises_to_one_with_a_call_a_part(ingested):
    _, _, calls = ingested
    shares = [share for share, _ in calls]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len({text for _, text in calls}) == len(calls) >= 6


def test_a_part_has_the_columns_of_the_schema_and_images_of_the_given_size(ingested):
    dataset, ids = Dataset.open(ingested[0]), []
    for split in ("train", "test"):
        for part, count in zip(dataset.parts(split), dataset.rows(split), strict=True):
            table = dataset.images(split).read_table(part)
            assert table["box"].null_count == table.num_rows
            assert table.schema.names == schemas.IMAGES.names
            assert table.num_rows == count <= 4
            assert Image.open(io.BytesIO(table["image"][0].as_py())).size == (48, 40)
            ids += table["image_id"].to_pylist()
    assert sorted(ids) == sorted(f"{folder}/{i:02d}.png" for folder in "ab" for i in range(10))


def test_rejected_inputs_are_listed(ingested):
    rejected = pq.read_table(ingested[0] / "rejected.parquet")
    assert rejected.schema.equals(schemas.REJECTED)
    assert rejected["source"].to_pylist() == ["a/cut.png", "b/empty.jpg"]


def test_the_number_of_workers_does_not_change_a_byte(source, tmp_path):
    ingest(source, tmp_path / "one", IngestOptions(part_images=4, workers=1))
    ingest(source, tmp_path / "four", IngestOptions(part_images=4, workers=4))
    assert contents(tmp_path / "one") == contents(tmp_path / "four")
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "four/manifest.json").read_bytes()


def test_ingesting_again_writes_nothing(source, tmp_path):
    target = tmp_path / "dataset"
    first = ingest(source, target, OPTIONS)
    before = {name: (target / name).stat().st_mtime_ns for name in tree(target)}
    again = ingest(source, target, OPTIONS, progress=lambda *_: pytest.fail("a part was built"))
    assert before == {name: (target / name).stat().st_mtime_ns for name in tree(target)}
    assert (first.existed, again.existed) == (False, True)
    assert (again.images, again.rejected) == (first.images, first.rejected)
    assert "already there" in str(again)


def test_other_options_or_another_source_are_refused(source, tmp_path):
    target = tmp_path / "dataset"
    ingest(source, target, OPTIONS)
    other = IngestOptions(part_images=4, test_share=0.25, size=47)
    with pytest.raises(RunError, match="other options; choose another folder, or remove it"):
        ingest(source, target, other)
    (target / "manifest.json").unlink()
    with pytest.raises(RunError, match="unfinished dataset of another source or with other options"):
        ingest(source, target, other)
    ingest(source, target, OPTIONS)
    (source / "a/00.png").unlink()
    with pytest.raises(RunError, match="another source"):
        ingest(source, target, OPTIONS)


def test_a_folder_with_other_files_is_refused_and_unchanged(source, tmp_path):
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not empty and no dataset"):
        ingest(source, target, OPTIONS)
    assert tree(target) == ["thesis.tex"]


def test_a_resumed_ingest_builds_only_the_missing_parts(source, tmp_path):
    target = tmp_path / "dataset"
    ingest(source, target, OPTIONS)
    before, whole = times(target), contents(target)
    manifest = (target / "manifest.json").read_bytes()
    lost = "train/images/part-00001.parquet"
    for name in ("manifest.json", lost):
        (target / name).unlink()
    (target / "train/images/.0123.partial").write_bytes(b"left by a killed writer")
    report = ingest(source, target, OPTIONS)
    assert {name for name, at in times(target).items() if at != before[name]} == {lost}
    assert contents(target) == whole
    assert (target / "manifest.json").read_bytes() == manifest
    assert report.reused_parts == len(before) - 1
    assert not list(target.rglob("*.partial"))


def test_a_missing_part_of_landmarks_is_built_again(tmp_path, source):
    names = [f"a/{i:02d}.png" for i in range(10)]
    pq.write_table(pa.table({"image": names, "landmarks": [[[3.0, 4.0]]] * 10}), tmp_path / "l.parquet")
    options = IngestOptions(part_images=4, landmarks=str(tmp_path / "l.parquet"))
    target = tmp_path / "dataset"
    ingest(source, target, options)
    assert sorted((target / "train/landmarks").iterdir()) == [
        target / "train/landmarks" / part for part in Dataset.open(target).parts("train")
    ]
    whole = contents(target)
    for name in ("manifest.json", "train/landmarks/part-00000.parquet"):
        (target / name).unlink()
    ingest(source, target, options)
    assert contents(target) == whole


def test_a_published_data_set_is_ingested_by_its_format(source, tmp_path):
    """COCO keypoints of three images: a whole one, a truncated one, a missing one."""
    (source / "a").rename(source / "images")
    names = ["00.png", "cut.png", "gone.png"]
    held = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": 9, "image_id": number, "category_id": 1, "bbox": [4, 4, 40, 40], "keypoints": [9, 8, 2, 30, 31, 1]}
            for number in range(3)
        ],
        "categories": [{"id": 1, "keypoints": ["left_eye", "right_eye"]}],
    }
    (source / "annotations").mkdir()
    (source / "annotations/train.json").write_text(json.dumps(held))
    target, options = tmp_path / "dataset", IngestOptions(format="coco", test_share=0)
    report = ingest(source, target, options)
    assert report.images == {"train": 1, "test": 0}
    assert report.rejected == {"truncated": 1, "missing": 1}
    found = landmark_arrays(Dataset.open(target), "train")
    assert found.ids == ["images/00.png#0"]
    assert found.visible.tolist() == [[True, False]]
    assert Dataset.open(target).meta["swap_pairs"] == [[0, 1]]
    assert ingest(source, target, options).existed


KILLED = """
import logging, os, signal, sys
import ray
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.steps.ingest import ingest
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
def progress(share, text):
    if share >= 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
ingest(sys.argv[1], sys.argv[2], IngestOptions(part_images=4, test_share=0.25, size=48), progress=progress)
"""


@pytest.mark.slow
def test_a_killed_ingest_continues_to_the_files_of_an_undisturbed_one(source, tmp_path):
    target = tmp_path / "dataset"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(target)], env=environment, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    time.sleep(1)  # the orphaned task ends
    before = times(target)
    assert before
    with pytest.raises(DataError, match="no finished dataset"):
        Dataset.open(target)
    report = ingest(source, target, OPTIONS)
    images = {name: at for name, at in before.items() if "/images/" in name}
    assert {name: times(target)[name] for name in images} == images
    assert report.reused_parts == len(images) > 0
    ingest(source, tmp_path / "undisturbed", OPTIONS)
    assert contents(target) == contents(tmp_path / "undisturbed")
    assert tree(target) == tree(tmp_path / "undisturbed")


def test_a_source_without_usable_images_is_an_error_of_one_line(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(DataError, match="no image found; 0 rejected, 0 other files"):
        ingest(source, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
    (source / "a.jpg").write_text("text")
    (source / "b.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image to train on is left; 2 rejected.*rejected.parquet"):
        ingest(source, tmp_path / "dataset", IngestOptions(test_share=0))
    assert len(pq.read_table(tmp_path / "dataset/rejected.parquet")) == 2
    assert not (tmp_path / "dataset/manifest.json").exists()


def test_what_was_rejected_of_a_source_without_images_is_listed_and_the_folder_can_be_used(tmp_path, source):
    os.symlink("nothing", source / "a.png")
    for folder in "ab":
        (source / folder).rename(tmp_path / folder)
    target = tmp_path / "dataset"
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"no image found; 1 rejected .*e\.g\. a\.png: unreadable: .*; see .*/rejected"
        ) as e:
            ingest(source, target, OPTIONS)
    assert "\n" not in str(e.value)
    assert pq.read_table(target / "rejected.parquet")["source"].to_pylist() == ["a.png"]
    (source / "a.png").unlink()
    (tmp_path / "a").rename(source / "a")
    assert ingest(source, target, OPTIONS).rejected == {"truncated": 1}
    assert pq.read_table(target / "rejected.parquet")["source"].to_pylist() == ["a/cut.png"]


def test_the_summary_names_what_is_skipped_and_what_was_decided(source, tmp_path):
    for name in ("a/1.nef", "a/2.nef", "b/film.mp4"):
        (source / name).write_bytes(b"content")
    (source / "a").rename(source / "train")
    (source / "b").rename(source / "val")
    report = ingest(source, tmp_path / "dataset", OPTIONS)
    first, *others = str(report).splitlines()
    assert first.startswith(f"{tmp_path}/dataset: 10 train, 10 test; 2 rejected (")
    assert "1 other files; 2 .nef skipped: raw camera files, " in first
    assert "; 1 .mp4 skipped: videos, " in first
    assert others == [
        "in folders named val: 11 pictures, used for testing",
        "not used, and listed in rejected.parquet, e.g. train/cut.png: truncated",
    ]
    again = ingest(source, tmp_path / "dataset", OPTIONS)
    assert str(again).replace("already there: ", "") == str(report)


def test_pictures_that_are_there_twice_are_counted_and_listed(source, tmp_path):
    (source / "a").rename(source / "train")
    (source / "b").rename(source / "test")
    (source / "train/leak.png").write_bytes((source / "test/03.png").read_bytes())
    (source / "train/again.png").write_bytes((source / "train/05.png").read_bytes())
    target = tmp_path / "dataset"
    report = ingest(source, target, OPTIONS)
    assert report.images == {"train": 12, "test": 10}
    expected = {
        "test/03.png": "in both splits: the same picture as train/leak.png",
        "train/again.png": "repeated in its split: the same picture as train/05.png",
    }

    def noted():
        rows = pq.read_table(target / "notes.parquet").to_pylist()
        return {row["source"]: row["reason"] for row in rows}

    assert {frozenset((name, text.rpartition(" ")[2])) for name, text in noted().items()} == {
        frozenset((name, text.rpartition(" ")[2])) for name, text in expected.items()
    }
    line = "used, and listed in notes.parquet: 1 in both splits, 1 repeated in its split"
    assert line in str(report).splitlines()
    first, manifest = noted(), (target / "manifest.json").read_bytes()
    for name in ("manifest.json", "notes.parquet", "train/images/part-00001.parquet"):
        (target / name).unlink()
    assert str(ingest(source, target, OPTIONS)) == str(report)
    assert (noted(), (target / "manifest.json").read_bytes()) == (first, manifest)
    assert not list(target.rglob(".digests/*"))


def test_a_name_that_is_no_text_ends_in_the_list_of_rejected_inputs(source, tmp_path):
    (source / "a").rename(source / "images")
    held = {
        "images": [{"id": 0, "file_name": "00.png"}, {"id": 1, "file_name": "\ud800.png"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [4, 4, 40, 40], "keypoints": [9, 8, 2]} for n in (0, 1)
        ],
        "categories": [{"id": 1, "keypoints": ["nose"]}],
    }
    (source / "annotations").mkdir()
    (source / "annotations/train.json").write_text(json.dumps(held))
    ingest(source, tmp_path / "dataset", IngestOptions(format="coco", test_share=0))
    rejected = pq.read_table(tmp_path / "dataset/rejected.parquet")["source"].to_pylist()
    assert rejected == ["annotation 1", "image 1"]


def test_options_of_later_versions_leave_the_fingerprint_of_a_dataset_as_it_was(source):
    listing = list_source(source, IngestOptions())
    read = {"margin": 0.2, "min_side": 32, "part_images": 512, "seed": 0, "size": 256, "test_share": 0.1}
    columns = ["image_id", "image", "width", "height", "box", "crop_to_source", "sequence", "frame"]
    images = pa.schema([schemas.IMAGES.field(name) for name in columns])
    content = [read, listing.identity, listing.meta, [str(images), str(schemas.LANDMARKS)]]
    expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert _fingerprint(listing, IngestOptions(workers=3)) == expected
    assert _fingerprint(listing, IngestOptions(drop_duplicates=True)) != expected


def test_a_part_without_usable_images_is_not_written(tmp_path, source):
    for i in range(4):
        (source / "a" / f"{i:02d}.png").write_bytes(b"")
    target = tmp_path / "dataset"
    ingest(source, target, IngestOptions(part_images=4, test_share=0))
    dataset = Dataset.open(target)
    assert dataset.parts("train") == dataset.images("train").parts()
    assert "part-00000.parquet" not in dataset.parts("train")
    assert dataset.manifest["rejected"] == 6


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such file or folder"), ("a.zip", "a folder of images")])
def test_a_source_that_is_no_folder_or_parquet_file_is_refused(tmp_path, name, message):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match=message):
        list_source(tmp_path / name, IngestOptions())


def test_source_and_dataset_can_be_uris(source, tmp_path):
    ingest(source.as_uri(), (tmp_path / "dataset").as_uri(), OPTIONS)
    ingest(source, tmp_path / "plain", OPTIONS)
    assert contents(tmp_path / "dataset") == contents(tmp_path / "plain")


@pytest.mark.slow
def test_a_data_set_of_real_faces_is_ingested_without_loss(face_ytf68, tmp_path):
    report = ingest(face_ytf68, tmp_path / "faces")
    assert report.images == {"train": 3495, "test": 732}
    assert not report.rejected
    dataset = Dataset.open(tmp_path / "faces")
    assert dataset.meta["name"] == "face_ytf68"
    assert len(dataset.meta["swap_pairs"]) == 29
    assert dataset.manifest["image_size"] == 128
    given = Folder.at(face_ytf68).read_table("test.parquet", ["image_id", "image", "landmarks", "bbox"])
    arrays = landmark_arrays(dataset, "test")
    assert arrays.ids == given["image_id"].to_pylist()
    assert (arrays.landmarks == np.array(given["landmarks"].to_pylist(), np.float32)).all()
    assert (arrays.boxes == np.array(given["bbox"].to_pylist(), np.float32)).all()
    stored = [dataset.images("test").read_table(part, ["image"])["image"] for part in dataset.parts("test")]
    assert [image for column in stored for image in column.to_pylist()] == given["image"].to_pylist()
