"""Which reader a source asks for, and what is said where it has nothing."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.listing import NoImageError, list_source, losses_text
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder


def encoded(seed=0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded())


def shard(path: Path, *ids: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image_id": list(ids), "image": [encoded(n) for n in range(len(ids))]}), path)


def ids(source, **options) -> set[str]:
    listing = list_source(source, IngestOptions(test_share=0, **options))
    entries = [entry for entries in listing.splits.values() for entry in entries]
    return set(listing.read_part(entries).images["image_id"].to_pylist())


def test_a_table_beside_pictures_does_not_make_them_parquet(tmp_path):
    picture(tmp_path / "cats/a.png")
    pq.write_table(pa.table({"image": ["cats/a.png"], "landmarks": [[[1.0, 2.0]]]}), tmp_path / "points.parquet")
    assert ids(tmp_path) == {"cats/a.png"}


@pytest.mark.parametrize("place", ["x.parquet", "data/x.parquet", "default/train/0000.parquet"])
def test_parquet_files_without_pictures_are_the_source_each_once(tmp_path, place):
    shard(tmp_path / place, "a", "b")
    os.symlink(tmp_path, tmp_path / "test")  # as a split is called
    (tmp_path / place).with_name("._x.parquet").write_bytes(b"\0\5\26\7")
    (tmp_path / os.fsdecode(b"notes \xf1.txt")).write_text("hello")
    listing = list_source(tmp_path, IngestOptions(test_share=0))
    assert ids(tmp_path) == {"a", "b"}
    assert not listing.rejected


def test_names_that_are_no_utf8_do_not_end_a_listing(tmp_path):
    picture(tmp_path / "a.png")
    for name in (b"Mu\xf1oz.png", b"\xff.parquet"):
        picture(tmp_path / os.fsdecode(name))
    os.mkdir(os.fsencode(tmp_path) + b"/tr\xe9in")
    listing = list_source(tmp_path, IngestOptions())
    assert ids(tmp_path) == {"a.png"}
    assert listing.rejected == [("Mu\\xf1oz.png", "name is not UTF-8: rename it")]
    assert Folder.at(tmp_path).names() == ["a.png"]
    assert Folder.at(tmp_path).folders() == []


def test_a_source_without_pictures_says_what_it_has(tmp_path):
    for name in ("a.heif_", "b.nef", "c.nef", "d.txt"):
        (tmp_path / name).write_bytes(b"content")
    with pytest.raises(NoImageError, match=r"no image found; 0 rejected, 2 other files; 2 \.nef skipped: raw camera"):
        list_source(tmp_path, IngestOptions())
    os.symlink("nothing", tmp_path / "e.png")
    with pytest.raises(NoImageError, match=r"e\.g\. e\.png: unreadable: a link to nothing") as caught:
        list_source(tmp_path, IngestOptions())
    assert caught.value.rejected == [("e.png", "unreadable: a link to nothing")]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["fifo", "file", "nothing"])
def test_a_source_that_is_no_folder_is_one_line(tmp_path, kind):
    if kind == "fifo":
        os.mkfifo(tmp_path / "source")
    elif kind == "file":
        (tmp_path / "source").write_text("text")
    with pytest.raises(DataError) as caught:
        list_source(tmp_path / "source", IngestOptions())
    assert str(tmp_path / "source") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kinds_with_the_same_advice_are_said_together():
    line = losses_text({"truncated": 2, "not an image": 1}, 4, {".nef": 3, ".dng": 1, ".mp4": 1})
    assert line == (
        "3 rejected (2 truncated, 1 not an image), 4 other files; 3 .nef, 1 .dng skipped: raw camera files, export as JPEG or "
        "PNG; 1 .mp4 skipped: videos, --every N takes every N-th frame (extra `video`)"
    )
