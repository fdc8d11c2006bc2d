"""Which pictures of a folder are used, and in which split."""

import hashlib
import os
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from ray_kplm.datasets.dataset import IngestOptions, split_of
from ray_kplm.datasets.readers.folder import list_folder
from ray_kplm.datasets.readers.folder_files import list_pictures
from ray_kplm.storage import Folder


def picture(path, seed=None, form=None):
    """Save a picture of noise, the same for the same seed; by default another one for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big") if seed is None else seed
    values = np.random.default_rng(seed).integers(0, 256, (36, 40, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, form)
    return path


def splits(folder, **options) -> dict[str, list[str]]:
    listing = list_folder(Folder.at(folder), IngestOptions(**options))
    return {split: [crop.image_id for crop in crops] for split, crops in listing.splits.items()}


def pictures(folder, **options):
    return list_pictures(Folder.at(folder), IngestOptions(**options))


@pytest.mark.parametrize(
    ("files", "train", "test", "note"),
    [
        ("train/1 train/2 test/3", "train/1 train/2", "test/3", None),
        ("Train/1 TEST/2", "Train/1", "TEST/2", None),
        (
            "training/1 testing/2 validation/3",
            "training/1 validation/3",
            "testing/2",
            "named val: 1 picture, .* training",
        ),
        ("train/1 val/2", "train/1", "val/2", "named val: 1 picture, used for testing"),
        ("train/1 test/2 stray", "stray train/1", "test/2", "outside .*: 1 picture, used for training"),
        (
            "train/1 test/2 more/3 more/4",
            "more/3 more/4 train/1",
            "test/2",
            "outside .*: 2 pictures, used for training",
        ),
        ("images/train/1 images/val/2", "images/train/1", "images/val/2", "named val"),
        ("train2017/1 val2017/2 test2017/3", "train2017/1 val2017/2", "test2017/3", "named val"),
        ("set/a/train/1 set/a/test/2 set/b/test/3", "set/a/train/1", "set/a/test/2 set/b/test/3", None),
        ("train_images/1 test_images/2", "train_images/1", "test_images/2", None),
        ("bottle/train/good/1 bottle/test/broken/2", "bottle/train/good/1", "bottle/test/broken/2", None),
    ],
)
def test_folders_that_are_named_as_splits_are_the_splits(tmp_path, files, train, test, note):
    for name in files.split():
        picture(tmp_path / f"{name}.png")
    found = splits(tmp_path, test_share=0.9)
    assert found == {s: [f"{name}.png" for name in names.split()] for s, names in (("train", train), ("test", test))}
    notes = pictures(tmp_path).notes
    assert len(notes) == (note is not None)
    if note:
        assert re.search(note, notes[0])


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ("cats dogs", None),
        ("train bus car", "folders are named train alone"),
        ("test", "folders are named test alone"),
        ("train", "folders are named train alone"),
        ("val", "folders are named val alone"),
        ("contest retrained", None),
    ],
)
def test_other_folders_are_drawn_as_without_folders_and_half_of_a_pair_is_said(tmp_path, files, note):
    for folder in files.split():
        for number in range(12):
            picture(tmp_path / folder / f"{folder}{number}.png")
    options = IngestOptions(test_share=0.4)
    found = splits(tmp_path, test_share=0.4)
    assert found["train"]
    assert found["test"]
    assert all(split_of(name, options) == split for split, names in found.items() for name in names)
    notes = pictures(tmp_path, test_share=0.4).notes
    assert [note in said for said in notes] == [True] * (note is not None)


def test_a_folder_keeps_the_identity_that_earlier_versions_gave_it(tmp_path):
    lines = []
    for name in ("train/a.png", "train/b.JPG", "test/c.tiff", "test/.d.png"):
        picture(tmp_path / name)
        at = (tmp_path / name).stat()
        lines.append(f"{name}\0{at.st_size}\0{at.st_mtime_ns}\n")
    (tmp_path / "notes.txt").write_text("no picture")
    expected = hashlib.sha256("".join(sorted(lines[:3])).encode()).hexdigest()
    assert list_folder(Folder.at(tmp_path), IngestOptions()).identity == expected
    picture(tmp_path / "val/e.png")
    changed = pictures(tmp_path).identity.hexdigest()
    at = (tmp_path / "val/e.png").stat()
    lines[3] = f"val/e.png\0{at.st_size}\0{at.st_mtime_ns}\n"
    assert changed != hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()  # these were drawn


def test_files_without_extension_are_pictures_by_content(tmp_path):
    for name, form in {
        "000123": "JPEG",
        "b/scan.2024": "PNG",
        "c.jpg_large": "JPEG",
        "d.ppm": None,
        "e.jp2": None,
    }.items():
        picture(tmp_path / name, form=form)
    picture(tmp_path / "really_png.jpg", form="PNG")
    picture(tmp_path / "table.csv", form="PNG")  # named as something else
    (tmp_path / "README").write_text("hello")
    (tmp_path / "Makefile").write_text("all:")
    found = pictures(tmp_path)
    assert found.paths == ["000123", "b/scan.2024", "c.jpg_large", "d.ppm", "e.jp2", "really_png.jpg"]
    assert found.other_files == 3
    listing = list_folder(Folder.at(tmp_path), IngestOptions())
    tables = listing.read_part([crop for crops in listing.splits.values() for crop in crops])
    assert tables.images.num_rows == 6
    assert not tables.rejected.num_rows


def test_kinds_that_are_not_read_are_counted_by_kind(tmp_path):
    picture(tmp_path / "a.jpg")
    for name in ("1.NEF", "2.nef", "3.mp4", "4.svg", "5.psd", ".6.nef"):
        (tmp_path / name).write_bytes(b"content")
    (tmp_path / "video").write_bytes(b"\0\0\0\x18ftypisom" + bytes(20))
    found = pictures(tmp_path)
    assert found.paths == ["a.jpg"]
    assert found.skipped == {".nef": 2, ".mp4": 2, ".svg": 1, ".psd": 1}
    assert found.other_files == 0


def test_a_file_with_several_names_is_one_picture_that_of_the_test_split(tmp_path):
    picture(tmp_path / "train/a.png")
    picture(tmp_path / "train/b.png")
    (tmp_path / "test").mkdir()
    os.symlink(tmp_path / "train/a.png", tmp_path / "test/a.png")
    os.link(tmp_path / "train/b.png", tmp_path / "train/b again.png")
    os.symlink(tmp_path, tmp_path / "train/loop")
    found = pictures(tmp_path)
    assert found.paths == ["test/a.png", "train/b again.png"]
    assert dict(found.rejected) == {
        "train/a.png": "link: the same file as test/a.png",
        "train/b.png": "link: the same file as train/b again.png",
    }
    assert found.notes == ["in the folders of both splits: 1 picture, used for testing alone"]


def test_copies_are_kept_in_one_split_where_it_is_drawn(tmp_path):
    for number in range(30):
        picture(tmp_path / f"a/{number}.png", seed=number)
        picture(tmp_path / f"b/{number}.png", seed=number)
    options = IngestOptions(test_share=0.5)
    assert any(split_of(f"a/{n}.png", options) != split_of(f"b/{n}.png", options) for n in range(30))
    found = splits(tmp_path, test_share=0.5)
    assert {name[2:] for name in found["train"]} & {name[2:] for name in found["test"]} == set()
    assert len(found["train"]) + len(found["test"]) == 60
    assert found["test"]


def test_pictures_that_are_all_the_same_are_still_split(tmp_path):
    for number in range(30):
        picture(tmp_path / f"{number}.png", seed=0)
    found = splits(tmp_path, test_share=0.5)
    assert found["train"]
    assert found["test"]


def test_copies_are_dropped_if_asked_to_those_for_training_first(tmp_path):
    for name, seed in {"train/a": 0, "train/b": 1, "train/c": 1, "test/d": 0, "test/e": 2}.items():
        picture(tmp_path / f"{name}.png", seed=seed)
    assert len(pictures(tmp_path).paths) == 5
    found = pictures(tmp_path, drop_duplicates=True)
    assert found.paths == ["test/d.png", "test/e.png", "train/b.png"]
    assert dict(found.rejected) == {
        "train/a.png": "duplicate: the same content as test/d.png",
        "train/c.png": "duplicate: the same content as train/b.png",
    }
    assert found.notes == ["in the folders of both splits: 1 picture, used for testing alone"]
    assert found.identity.hexdigest() != pictures(tmp_path).identity.hexdigest()


def test_boxes_of_both_copies_are_used_and_the_leak_is_said(tmp_path):
    for name in ("train/a.png", "train/b.png", "test/a.png"):
        picture(tmp_path / "in" / name)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x0,y0,x1,y1\ntrain/a.png,0,0,32,32\ntrain/b.png,0,0,32,32\ntest/a.png,4,4,36,34\n")
    listing = list_folder(Folder.at(tmp_path / "in"), IngestOptions(boxes=str(boxes)))
    assert {split: len(crops) for split, crops in listing.splits.items()} == {"train": 2, "test": 1}
    assert "in the folders of both splits: 1 picture" in listing.notes


def test_what_cannot_be_used_is_rejected_if_it_may_be_a_picture(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.txt")
    os.symlink("nothing", tmp_path / "gone")
    assert dict(pictures(tmp_path).rejected) == {
        "pipe.png": "not a file: a pipe",
        "gone": "unreadable: a link to nothing",
    }


def test_composed_and_decomposed_names_are_two_files(tmp_path):
    for form in ("NFC", "NFD"):
        picture(tmp_path / unicodedata.normalize(form, "mü.png"), seed=len(form) + ord(form[2]))
    assert len(pictures(tmp_path).paths) == 2


def test_a_picture_that_is_something_else_says_what(tmp_path):
    for name, content in {
        "a.jpg": b"<!DOCTYPE html><p>404",
        "b.jpg": b"\0\0\0\x18ftypisom" + bytes(20),
        "c.jpg": b"text",
    }.items():
        (tmp_path / name).write_bytes(content)
    listing = list_folder(Folder.at(tmp_path), IngestOptions(test_share=0))
    tables = listing.read_part(listing.splits["train"])
    reasons = dict(zip(*(tables.rejected[column].to_pylist() for column in ("source", "reason")), strict=True))
    assert reasons["a.jpg"].startswith("not an image: a web page")
    assert reasons["b.jpg"].startswith("not an image: a .mp4 file: videos")
    assert reasons["c.jpg"] == "not an image"


def test_landmarks_are_predicted_for_every_name_of_a_picture(tmp_path):
    for name in ("train/a.png", "test/b.png"):
        picture(tmp_path / name, seed=0)
    os.symlink(tmp_path / "train/a.png", tmp_path / "link.png")
    (tmp_path / "c.nef").write_bytes(b"raw")
    found = pictures(tmp_path, test_share=0.0, input_size=64)
    assert found.paths == ["link.png", "test/b.png", "train/a.png"]
    assert not found.notes
    assert found.skipped == {".nef": 1}
