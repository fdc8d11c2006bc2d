"""Parquet files of a folder: their splits by words of their paths, and which folders are such sources."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.listing import list_source
from ray_kplm.datasets.readers.shards import split_shards
from ray_kplm.errors import DataError


@pytest.mark.parametrize(
    ("paths", "splits"),
    [
        (["test.parquet", "train.parquet"], ["train", "test"]),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], ["train", "train"]),
        (["train-0.parquet", "test-0.parquet", "validation-0.parquet"], ["train", "train", "test"]),
        (["train-0.parquet", "validation-0.parquet"], ["train", "test"]),
        (["train/0000.parquet", "default/test/0000.parquet", "val/0.parquet"], ["train", "train", "test"]),
        (["Training_A.parquet", "TESTING_a.parquet"], ["train", "test"]),
        (["0000.parquet", "0001.parquet"], [None, None]),
        (["restrained.parquet", "latest.parquet", "contest.parquet"], [None, None, None]),
        (["test-0.parquet", "dev.parquet"], ["train", "test"]),
        (["test-0.parquet"], [None]),
        (["train-0.parquet", "boxes.parquet"], ["train"]),
    ],
)
def test_words_decide_the_split(paths, splits):
    files, notes = split_shards(paths)
    assert list(files.values()) == splits
    said = any(word in path for path in paths for word in ("val", "dev", "boxes")) or paths == ["test-0.parquet"]
    assert bool(notes) == said


def put(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), (9, 99, 9)).save(stream, "PNG")
    pq.write_table(pa.table({"image_id": ids, "image": [stream.getvalue()] * len(ids)}), path)


def counts(folder):
    listing = list_source(folder, IngestOptions(test_share=0.0))
    return {split: len(entries) for split, entries in listing.splits.items()}, listing


def test_a_folder_of_a_hub_is_read_with_its_splits(tmp_path):
    put(tmp_path / "data/train-00000-of-00002.parquet", ["a", "b"])
    put(tmp_path / "data/train-00001-of-00002.parquet", ["c"])
    put(tmp_path / "data/test-00000-of-00001.parquet", ["d"])
    put(tmp_path / ".cache/train-00000-of-00001.parquet", ["e"])
    (tmp_path / "README.md").write_text("card")
    assert counts(tmp_path)[0] == {"train": 3, "test": 1}
    put(tmp_path / "data/validation-00000-of-00001.parquet", ["f"])
    found, listing = counts(tmp_path)
    assert found == {"train": 4, "test": 1}
    assert list(listing.notes) == ["files of validation are the train split, as the files of test are"]


def test_a_folder_of_pictures_is_no_source_of_parquet_files(tmp_path):
    put(tmp_path / "points.parquet", ["a"])
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    _, listing = counts(tmp_path)
    assert [crop.image_id for crop in listing.splits["train"]] == ["a.png"]
    put(tmp_path / "train.parquet", ["x", "y"])
    assert counts(tmp_path)[0] == {"train": 2, "test": 0}


def test_files_of_no_split_are_drawn_and_a_folder_without_any_is_an_error(tmp_path):
    put(tmp_path / "0000.parquet", [str(i) for i in range(40)])
    listing = list_source(tmp_path, IngestOptions(test_share=0.4))
    assert min(map(len, listing.splits.values())) > 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image found"):
        list_source(tmp_path / "empty", IngestOptions())
