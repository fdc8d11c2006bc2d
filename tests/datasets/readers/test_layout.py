"""What all readers of published data sets share: odd files, lists and sizes."""

import os
import unicodedata

import numpy as np
import pytest

from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.ingest_source import Sample
from ray_kplm.datasets.readers.layout import BOX_SIZE, Distribution, Layout
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

SET = Distribution("a set", "https://example.org", "free")
XY = np.array([[20.0, 30.0], [60.0, 50.0]])


def layout_of(source) -> Layout:
    return Layout(Folder.at(source.root), SET, IngestOptions())


def read(source, *samples, layout=None):
    """All samples as training images: tables and rejected ones of the listing."""
    layout = layout or layout_of(source)
    layout.files("")
    listing = layout.listing({"train": list(samples), "test": []}, ("a", "b"), BOX_SIZE)
    return listing, listing.read_part(listing.splits["train"])


def sample(path, **more) -> Sample:
    more.setdefault("annotation", {"landmarks": XY})
    return Sample(path, path, (10.0, 12.0, 80.0, 72.0), **more)


def reasons(listing, tables) -> dict[str, str]:
    rows = [(row["source"], row["reason"]) for row in tables.rejected.to_pylist()]
    return dict([*listing.rejected, *rows])


def test_hidden_files_and_loops_do_not_exist(source):
    source.picture("a/1.jpg")
    source.content("a/._1.jpg", b"\0\5\26\7")
    source.content("__MACOSX/a/2.jpg", b"")
    os.symlink(source.root, source.root / "a/all")
    assert layout_of(source).files("") == ["a/1.jpg"]


def test_the_same_file_by_two_names_is_two_pictures_of_a_list(source):
    source.picture("pool/1.jpg")
    os.symlink(source.root / "pool/1.jpg", source.local("train/1.jpg"))
    listing, tables = read(source, sample("train/1.jpg"), sample("pool/1.jpg"))
    assert tables.images.num_rows == 2
    assert not listing.rejected


def test_unreadable_files_are_rejected_and_the_others_are_read(source, monkeypatch):
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        source.picture(name)
    os.mkfifo(source.local("4.jpg"))
    whole = Folder.read_bytes

    def read_bytes(self, name):
        if name == "2.jpg":
            raise PermissionError(13, "Permission denied")
        return whole(self, name)

    monkeypatch.setattr(Folder, "read_bytes", read_bytes)
    listing, tables = read(source, *(sample(f"{n}.jpg") for n in (1, 2, 3, 4, 5)))
    assert tables.images["image_id"].to_pylist() == ["1.jpg", "3.jpg"]
    found = [*listing.rejected, *((row["source"], row["reason"]) for row in tables.rejected.to_pylist())]
    assert sorted(found) == [
        ("2.jpg", "unreadable: permission denied"),
        ("4.jpg", "missing: no picture 4.jpg"),
        ("4.jpg", "not a file: a pipe"),
        ("5.jpg", "missing: no picture 5.jpg"),
    ]


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_found_however_their_accents_are_written(source, on_disk, in_list):
    name = "Müñoz é.jpg"
    source.picture(unicodedata.normalize(on_disk, name))
    listing, tables = read(source, sample(unicodedata.normalize(in_list, name)))
    assert not reasons(listing, tables)
    assert tables.images["image_id"].to_pylist() == [unicodedata.normalize(in_list, name)]


def test_two_files_whose_names_look_the_same_are_told_apart(source):
    composed, decomposed = (unicodedata.normalize(form, "mü.jpg") for form in ("NFC", "NFD"))
    source.picture(composed)
    source.picture(decomposed)
    layout = layout_of(source)
    layout.files("")
    assert (layout.find(composed), layout.find(decomposed)) == (composed, decomposed)


@pytest.mark.parametrize(("width", "height"), [(100, 90), (200, 180), (50, 45), (301, 270), (33, 30)])
def test_annotation_is_scaled_to_a_picture_of_the_same_shape(source, width, height):
    source.picture("a.jpg", width=width, height=height)
    listing, tables = read(source, sample("a.jpg", size=(100, 90)))
    assert not reasons(listing, tables)
    [image], [row] = tables.images.to_pylist(), tables.landmarks.to_pylist()
    scale = np.array([width / 100, height / 90])
    affine = np.reshape(image["crop_to_source"], (2, 3))
    points = np.array(row["landmarks"]) @ affine[:, :2].T + affine[:, 2]
    assert np.allclose(points, (XY + 0.5) * scale - 0.5, atol=1e-3)
    corners = np.reshape(image["box"], (2, 2)) @ affine[:, :2].T + affine[:, 2]
    assert np.allclose(corners, (np.array([[10, 12], [80, 72]]) + 0.5) * scale - 0.5, atol=1e-3)
    notes = [row["reason"] for row in tables.noted.to_pylist()]
    assert [note.partition(":")[0] for note in notes] == ["scaled"] * ((width, height) != (100, 90))


@pytest.mark.parametrize(("width", "height"), [(90, 100), (100, 100), (200, 170), (128, 128), (90, 101)])
def test_a_picture_of_another_shape_is_rejected_with_both_sizes(source, width, height):
    source.picture("a.jpg", width=width, height=height)
    listing, tables = read(source, sample("a.jpg", size=(100, 90)))
    expected = f"other size: the picture has {width} x {height} px, its annotation is of 100 x 90"
    assert reasons(listing, tables) == {"a.jpg": expected}


def test_a_list_that_repeats_an_id_with_other_values_is_said(source):
    source.text("list.txt", "a.jpg 1", "b.jpg 2", "a.jpg 1", "b.jpg 3")
    layout = layout_of(source)
    assert layout.table("list.txt") == {"a.jpg": ["1"], "b.jpg": ["2"]}
    assert [(what, reason.partition(":")[0]) for what, reason in layout.rejected] == [("b.jpg", "repeated")]


def test_an_id_in_the_lists_of_both_splits_is_for_testing(source):
    layout = layout_of(source)
    assert layout.splits_of({"train": [1, 2, 3], "test": [3, 4]}) == {1: "train", 2: "train", 3: "test", 4: "test"}
    assert layout.notes == ["in the lists of both splits: 1, used for testing alone"]


def test_a_report_says_how_many_pictures_were_found(source):
    source.picture("1.jpg")
    layout = layout_of(source)
    layout.match("boxes", 2, 3)
    listing, _ = read(source, sample("1.jpg"), sample("2.jpg"), layout=layout)
    assert listing.notes == ("matched: boxes 2 of 3, pictures 1 of 2",)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{", b'{"a": "\xf1"}', b"[" * 100_000, b"", b"[1, 2"])
def test_a_damaged_json_is_one_line_with_its_name(source, content):
    source.content("a.json", content)
    with pytest.raises(DataError, match=r"a\.json is no JSON: ") as caught:
        layout_of(source).json("a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_json_may_be_in_any_unicode_encoding(source, encoding):
    source.content("a.json", '{"ü": 1}'.encode(encoding))
    assert layout_of(source).json("a.json") == {"ü": 1}


def test_a_required_file_that_cannot_be_read_is_one_line_with_its_name(source):
    (source.root / "list.txt").mkdir()
    with pytest.raises(DataError, match=r"list\.txt: unreadable"):
        layout_of(source).rows("list.txt")


def test_a_file_in_place_of_a_folder_is_one_line_with_its_name(source):
    source.text("images", "no folder")
    with pytest.raises(DataError, match="images: cannot be listed: Not a directory"):
        layout_of(source).files("images")
