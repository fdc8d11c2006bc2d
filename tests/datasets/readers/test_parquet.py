"""Parquet sources: bytes kept, splits kept, only the wanted rows read."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm import schemas
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.readers import parquet
from ray_kplm.datasets.readers.parquet import Row, list_parquet, read_rows
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

GIVEN = {"train.parquet": "train", "test.parquet": "test"}


def encoded(shade: int, form: str = "JPEG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), (shade, 0, 0)).convert(mode).save(stream, form)
    return stream.getvalue()


def table(ids, **replaced) -> dict:
    count = len(ids)
    columns = {
        "image_id": ids,
        "image": [encoded(i) for i in range(count)],
        "bbox": [[1.0, 2.0, 30.0, 31.0]] * count,
        "landmarks": [[[float(i), 5.0], [7.0, 8.0]] for i in range(count)],
        "visible": [[True, False]] * count,
        "group": [f"g{i // 2}" for i in range(count)],
    }
    return {name: column for name, column in {**columns, **replaced}.items() if column is not None}


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)


def read_all(listing):
    return listing.read_part([entry for split in listing.splits.values() for entry in split])


def test_splits_boxes_landmarks_and_bytes_of_the_source_are_kept(tmp_path):
    train, test = table(["a", "b", "c"]), table(["d"])
    write(tmp_path / "train.parquet", train)
    write(tmp_path / "test.parquet", test)
    meta = {
        "name": "cow",
        "landmark_names": ["l", "r"],
        "swap_pairs": [[0, 1]],
        "nme": {"type": "x"},
        "licence": "CC",
    }
    (tmp_path / "dataset.json").write_text(json.dumps({**meta, "notes": "not kept"}))
    listing = list_parquet(Folder.at(tmp_path), GIVEN, IngestOptions(test_share=0.9))
    assert {split: len(entries) for split, entries in listing.splits.items()} == {"train": 3, "test": 1}
    assert listing.meta == meta
    assert listing.landmarks == 2
    tables = listing.read_part(listing.splits["train"][1:])
    assert tables.images["image_id"].to_pylist() == tables.landmarks["image_id"].to_pylist() == ["b", "c"]
    assert tables.images["image"].to_pylist() == train["image"][1:]
    assert tables.images["box"].to_pylist() == train["bbox"][1:]
    assert tables.images["crop_to_source"].to_pylist() == [[1, 0, 0, 0, 1, 0]] * 2
    assert tables.landmarks["landmarks"].to_pylist() == train["landmarks"][1:]
    assert tables.landmarks["visible"].to_pylist() == train["visible"][1:]
    assert tables.landmarks["group"].to_pylist() == train["group"][1:]
    assert tables.images.schema.names == schemas.IMAGES.names
    assert tables.landmarks.schema.equals(schemas.LANDMARKS)


def test_images_alone_are_enough_and_one_file_is_split_by_group(tmp_path):
    ids = [str(i) for i in range(60)]
    write(tmp_path / "all.parquet", table(ids, bbox=None, landmarks=None, visible=None))
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions(test_share=0.3))
    assert listing.landmarks == 0
    groups = {split: {row.number // 2 for row in rows} for split, rows in listing.splits.items()}
    assert all(groups.values())
    assert not groups["train"] & groups["test"]
    tables = read_all(listing)
    assert tables.landmarks is None
    assert sorted(tables.images["image_id"].to_pylist(), key=int) == ids
    assert tables.images["box"].null_count == 60


def test_other_encodings_become_rgb_jpeg_and_broken_rows_are_rejected(tmp_path):
    pictures = [
        encoded(9, "JPEG", "L"),
        encoded(9, "WEBP"),
        encoded(9)[:-20],
        None,
        b"text",
        encoded(9, "PNG"),
    ]
    bbox = [None, [1.0, 2.0, 3.0, 4.0], None, None, None, [1.0, 2.0]]
    columns = table(list("abcdef"), image=pa.array(pictures, pa.binary()), bbox=bbox, landmarks=None, visible=None)
    write(tmp_path / "all.parquet", columns)
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    tables = read_all(listing)
    for row in tables.images.to_pylist():
        stored = Image.open(io.BytesIO(row["image"]))
        assert (stored.format, stored.mode) == ("JPEG", "RGB")
    assert tables.images["box"].to_pylist() == bbox[:2]
    found = {row["source"]: row["reason"].partition(":")[0] for row in tables.rejected.to_pylist()}
    assert found == {"c": "truncated", "d": "empty file", "e": "not an image", "f": "bad box"}


def test_repeated_and_missing_ids_are_rejected_across_files(tmp_path):
    write(tmp_path / "train.parquet", table(["a", None, "a"]))
    write(tmp_path / "test.parquet", table(["a", "b"]))
    listing = list_parquet(Folder.at(tmp_path), GIVEN, IngestOptions())
    assert listing.splits == {"train": [Row("train.parquet", 0)], "test": [Row("test.parquet", 1)]}
    repeated = ("a", "image_id repeated")
    assert listing.rejected == [("train.parquet row 1", "no image_id"), repeated, repeated]


def test_unannotated_rows_are_nan(tmp_path):
    nan = float("nan")
    write(
        tmp_path / "all.parquet",
        table(["a", "b", "c"], landmarks=[None, [[1.0, 2.0], [nan, nan]], []], visible=None),
    )
    landmarks = read_all(list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())).landmarks
    points = np.array(landmarks["landmarks"].to_pylist())
    assert np.isnan(points).all(axis=2).tolist() == [[True, True], [False, True], [True, True]]
    assert landmarks["visible"].to_pylist() == [[False, False], [True, False], [False, False]]


@pytest.mark.parametrize("row_group_size", [1, 7, 100, 1000])
@pytest.mark.parametrize("rows", [[0], [299], [0, 6, 7, 8, 63, 64, 65, 128, 299], list(range(100, 200)), []])
def test_read_rows_gives_exactly_the_rows(tmp_path, row_group_size, rows):
    write(
        tmp_path / "t.parquet",
        {"image_id": list(range(300)), "x": list(range(300))},
        row_group_size=row_group_size,
    )
    found = read_rows(Folder.at(tmp_path), [Row("t.parquet", row) for row in rows], ("image_id", "unknown"))
    assert list(found) == [{"image_id": row} for row in rows]


def test_read_rows_decodes_no_row_group_beyond_those_wanted(tmp_path, monkeypatch):
    write(tmp_path / "t.parquet", {"x": list(range(300))}, row_group_size=100)
    groups = []
    batches = parquet._batches
    monkeypatch.setattr(parquet, "_batches", lambda f, c, group: groups.append(group) or batches(f, c, group))
    assert list(read_rows(Folder.at(tmp_path), [Row("t.parquet", 150)], ("x",))) == [{"x": 150}]
    assert groups == [1]


def test_read_rows_holds_a_few_rows_not_the_row_group(tmp_path):
    noise = np.random.default_rng(0).bytes(100_000)
    pages = {"use_dictionary": False, "compression": "none", "write_batch_size": 16}
    write(tmp_path / "t.parquet", {"image": [noise] * 400}, **pages)
    before = pa.total_allocated_bytes()
    for _ in read_rows(Folder.at(tmp_path), [Row("t.parquet", 399)], ("image",)):
        assert pa.total_allocated_bytes() - before < 20e6  # of 40e6


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_id": ["a"], "picture": [b"x"]}, "no column image; it has image_id, picture"),
        ({"image_id": [1], "image": [b"x"]}, "column image_id must be string, is int64"),
        ({"image_id": ["a"], "image": ["path.jpg"]}, "column image must be binary"),
        (table(["a", "b"], landmarks=[[[1.0, 2.0]], [[1.0, 2.0]] * 2]), r"found \[1, 2\]"),
        (table(["a"], landmarks=[[1.0, 2.0]]), "lists of pairs"),
    ],
)
def test_wrong_layout_is_one_clear_error(tmp_path, columns, message):
    write(tmp_path / "all.parquet", columns)
    with pytest.raises(DataError, match=message):
        list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions())


def test_a_file_that_is_no_parquet_and_wrong_landmark_names_are_errors(tmp_path):
    (tmp_path / "all.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"all\.parquet: "):
        list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions())
    write(tmp_path / "all.parquet", table(["a"]))
    (tmp_path / "dataset.json").write_text('{"landmark_names": ["only"]}')
    with pytest.raises(DataError, match="1 landmark_names, but images have 2 landmarks"):
        list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions())


def test_boxes_file_is_refused(tmp_path):
    write(tmp_path / "all.parquet", table(["a"]))
    with pytest.raises(DataError, match="--boxes, --landmarks and --sequences are for a folder"):
        list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions(boxes="b.csv"))


def test_frames_of_a_video_keep_their_place(tmp_path):
    columns = table(["a", "b", "c", "d"], group=None, sequence=["v", "v", None, "w"], frame=[3, 4, 5, None])
    write(tmp_path / "all.parquet", columns)
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions(test_share=0.0))
    assert listing.sequences
    images = read_all(listing).images
    assert images["sequence"].to_pylist() == ["v", "v", None, None]
    assert images["frame"].to_pylist() == [3, 4, None, None]
    write(tmp_path / "bad.parquet", table(["a"], sequence=["v"], frame=["first"]))
    with pytest.raises(DataError, match="column frame must be an integer, is string"):
        list_parquet(Folder.at(tmp_path), {"bad.parquet": None}, IngestOptions())


def test_further_numbers_become_attributes(tmp_path):
    columns = table(["a", "b"], yaw=[-30.0, None], note=["x", "y"], age=[3, 4])
    write(tmp_path / "all.parquet", columns)
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions(test_share=0.0))
    assert [dict(row) for row in read_all(listing).landmarks["attributes"].to_pylist()] == [
        {"age": 3.0, "yaw": -30.0},
        {"age": 4.0},
    ]
