"""Parquet sources: bytes kept, splits and groups kept, columns of any type read or named."""

import datetime
import io
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm import schemas
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.readers.parquet import list_parquet
from ray_kplm.datasets.readers.parquet_files import Row
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


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_id": ["a"], "picture": [b"x"]}, "no column image; it has image_id, picture"),
        ({"image_id": [1.5], "image": [b"x"]}, "column image_id must be text or whole numbers, is double"),
        ({"image_id": [True], "image": [b"x"]}, "column image_id must be text or whole numbers, is bool"),
        ({"image_id": [["a"]], "image": [b"x"]}, "column image_id must be text or whole numbers, is list"),
        ({"image_id": ["a"], "image": ["path.jpg"]}, "column image must be binary"),
        (table(["a", "b"], landmarks=[[[1.0, 2.0]], [[1.0, 2.0]] * 2]), r"found \[1, 2\]"),
        (
            table(["a"], landmarks=[[1.0, 2.0]]),
            "column landmarks must be lists of pairs x, y, is list<element: double>",
        ),
        (table(["a"], landmarks=[[[1.0, 2.0, 1.0]] * 2]), "every landmark must be a pair x, y, found 2 x 3"),
        (table(["a"], landmarks=[[[1.0, 2.0], [1.0]]]), "must be a pair x, y, found 2 x 1 and 2 x 2"),
        (table(["a"], landmarks=[["1 2"]]), "column landmarks must be lists of pairs x, y, is list<element: string>"),
        (
            table(["a"], visible=[True]),
            "column visible must be lists of true and false, one for each landmark, is bool",
        ),
        (table(["a"], bbox=["1 2 30 40"]), "column bbox must be lists of four numbers x0, y0, x1, y1, is string"),
        (table(["a"], bbox=[{"cx": 1, "cy": 2, "w": 3, "h": 4}]), "column bbox must be lists of four numbers"),
        (table(["a"], group=[["g"]]), "column group must be text, a number, true or false, or a date, is list"),
    ],
)
def test_wrong_layout_is_one_clear_error(tmp_path, columns, message):
    write(tmp_path / "all.parquet", columns)
    with pytest.raises(DataError, match=message):
        list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions())


def test_a_file_that_is_no_parquet_and_wrong_landmark_names_are_errors(tmp_path):
    (tmp_path / "all.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"all\.parquet: not readable as Parquet"):
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


@pytest.mark.parametrize(
    ("column", "kept"),
    [
        ("group", pa.array([0, 0, 1, 1] * 15)),
        ("group", pa.array([0.0, 0.0, 2.5, 2.5] * 15)),
        ("group", pa.array([False, False, True, True] * 15)),
        ("group", pa.array([b"\xff\0", b"\xff\0", b"", b""] * 15)),
        ("group", pa.array([datetime.date(2020, 1, 1)] * 2 + [datetime.date(1970, 1, 1)] * 2 + [None] * 56)),
        ("group", pa.array(["", "", "0", "0"] * 15)),
        ("group", pa.array(["", "", "0", "0"] * 15).dictionary_encode()),
        ("group", pa.array([Decimal("0.0"), Decimal("0.0"), Decimal("1.5"), Decimal("1.5")] * 15)),
        ("sequence", pa.array([0, 0, 7, 7] * 15, pa.uint8())),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.type),
)
def test_groups_of_any_type_stay_together(tmp_path, column, kept):
    ids = [f"{number:02d}" for number in range(60)]
    columns = {**table(ids, group=None), column: kept, "frame": list(range(60))}
    write(tmp_path / "all.parquet", columns)
    values = kept.to_pylist()
    for seed in range(6):  # some of which part the groups
        listing = list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions(test_share=0.5, seed=seed))
        of = {split: {values[row.number] for row in rows} - {None} for split, rows in listing.splits.items()}
        assert not of["train"] & of["test"]
        assert not listing.notes
    tables = read_all(listing)
    texts = tables.landmarks["group"] if column == "group" else tables.images["sequence"]
    by_id = dict(zip(tables.images["image_id"].to_pylist(), texts.to_pylist(), strict=True))
    for i in ids:
        for j in ids:
            assert (by_id[i] == by_id[j]) == (values[int(i)] == values[int(j)])


def test_a_missing_group_is_no_group(tmp_path):
    ids = [f"{number:03d}" for number in range(200)]
    for missing in (pa.nulls(200), pa.array([float("nan")] * 200), pa.array([None] * 200, pa.string())):
        write(tmp_path / "all.parquet", {**table(ids, group=None, landmarks=None, visible=None), "group": missing})
        listing = list_parquet(Folder.at(tmp_path), {"all.parquet": None}, IngestOptions(test_share=0.5))
        assert min(map(len, listing.splits.values())) > 60


def test_groups_that_the_files_part_are_said(tmp_path):
    write(tmp_path / "train.parquet", table(["a", "b"], group=[3, 4]))
    write(tmp_path / "test.parquet", table(["c"], group=[3]))
    listing = list_parquet(Folder.at(tmp_path), GIVEN, IngestOptions())
    assert list(listing.notes) == ["1 groups are in train and test, as their files say, e.g. '3'"]


def test_ids_of_whole_numbers_are_text_and_this_is_said(tmp_path):
    write(tmp_path / "all.parquet", table([7, 8]))
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    assert read_all(listing).images["image_id"].to_pylist() == ["7", "8"]
    assert list(listing.notes) == ["image_id is of whole numbers in all.parquet: they are read as text"]


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["x/a.jpg", "x/b.jpg"], ["x/a.jpg", "x/b.jpg"]),
        (["a.jpg", "a.jpg"], ["row-000000", "row-000001"]),
        (["a.jpg", None], ["row-000000", "row-000001"]),
        (None, ["row-000000", "row-000001"]),
    ],
)
def test_images_without_ids_are_called_by_their_paths_if_all_differ_else_by_their_rows(tmp_path, paths, ids):
    columns = table(["", ""])
    del columns["image_id"]
    if paths:
        columns["image"] = [{"bytes": b, "path": p} for b, p in zip(columns["image"], paths, strict=True)]
    write(tmp_path / "all.parquet", columns)
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    tables = read_all(listing)
    assert tables.images["image_id"].to_pylist() == ids == tables.landmarks["image_id"].to_pylist()
    assert "no column image_id" in listing.notes[0]
    write(tmp_path / "more.parquet", columns)
    both = list_parquet(Folder.at(tmp_path), {"all.parquet": "train", "more.parquet": "test"}, IngestOptions())
    assert len(set(read_all(both).images["image_id"].to_pylist())) == 4


def test_all_x_then_all_y_is_turned_and_said(tmp_path):
    turned = [[[1.0, 2.0, 3.0, None], [5.0, 6.0, 7.0, 8.0]], None]
    write(tmp_path / "all.parquet", table(["a", "b"], landmarks=turned, visible=None))
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    first, second = np.array(read_all(listing).landmarks["landmarks"].to_pylist())
    np.testing.assert_array_equal(first, [[1, 5], [2, 6], [3, 7], [np.nan, np.nan]])
    assert np.isnan(second).all()
    assert list(listing.notes) == ["all.parquet: landmarks are stored as 2 x 4: all x, then all y"]


def test_a_missing_point_is_not_annotated(tmp_path):
    nan = float("nan")
    points = [[[1.0, 2.0], None], [[nan, 4.0], [3.0, None]], [[1.0, float("inf")], [5.0, 6.0]]]
    write(tmp_path / "all.parquet", table(["a", "b", "c"], landmarks=points, visible=None))
    found = read_all(list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())).landmarks
    assert np.isnan(np.array(found["landmarks"].to_pylist())).all(axis=2).tolist() == [[0, 1], [1, 1], [1, 0]]
    assert found["visible"].to_pylist() == [[True, False], [False, False], [False, True]]


def test_of_several_files_a_damaged_one_is_rejected_and_the_others_are_read(tmp_path):
    write(tmp_path / "train-0.parquet", table(["a"]))
    for name, content in {"train-1": b"", "train-2": (tmp_path / "train-0.parquet").read_bytes()[:-9]}.items():
        (tmp_path / f"{name}.parquet").write_bytes(content)
    files = {f"train-{i}.parquet": "train" for i in range(3)}
    listing = list_parquet(Folder.at(tmp_path), files, IngestOptions())
    assert read_all(listing).images["image_id"].to_pylist() == ["a"]
    assert [(name, reason.partition(":")[0]) for name, reason in listing.rejected] == [
        ("train-1.parquet", "unreadable"),
        ("train-2.parquet", "unreadable"),
    ]
    del files["train-0.parquet"]
    with pytest.raises(DataError, match=r"train-1\.parquet: not readable as Parquet"):
        list_parquet(Folder.at(tmp_path), files, IngestOptions())


def test_a_page_that_is_damaged_is_one_line_with_the_file(tmp_path):
    write(
        tmp_path / "all.parquet", table([f"{i:04d}" * 9 for i in range(500)]), compression="zstd", use_dictionary=False
    )
    content = bytearray((tmp_path / "all.parquet").read_bytes())
    content[4:4000] = bytes(3996)
    (tmp_path / "all.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"all\.parquet: not readable as Parquet") as caught:
        list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    assert "\n" not in str(caught.value)


def test_of_points_with_one_coordinate_the_number_is_said(tmp_path):
    nan = float("nan")
    points = [[[nan, 4.0], [3.0, None]], [None, [nan, nan]]]
    write(tmp_path / "all.parquet", table(["a", "b"], landmarks=points, visible=None))
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    said = "all.parquet: 2 landmarks have one coordinate: they are taken as not annotated"
    assert list(listing.notes) == [said]


def test_numbers_of_any_size_are_attributes_and_coordinates_beyond_float32_are_not_annotated(tmp_path, recwarn):
    columns = table(["a"], landmarks=[[[1e300, 1.0], [3.0, 4.0]]], visible=None, yaw=[2**62], roll=[Decimal("1.5")])
    write(tmp_path / "all.parquet", columns)
    [row] = read_all(list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())).landmarks.to_pylist()
    assert dict(row["attributes"]) == {"yaw": 2.0**62, "roll": 1.5}
    assert row["visible"] == [False, True]
    assert not recwarn


def test_ids_that_are_no_utf_8_are_kept_with_escapes_and_empty_ones_are_rejected(tmp_path):
    raw = pa.array([b"Mu\xf1oz", b"b", b""], pa.binary())
    ids = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    write(tmp_path / "all.parquet", {**table(["", "", ""]), "image_id": ids})
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    assert read_all(listing).images["image_id"].to_pylist() == ["Mu\\xf1oz", "b"]
    assert listing.rejected == [("all.parquet row 2", "no image_id")]


@pytest.mark.parametrize("kind", [pa.binary_view(), pa.large_binary(), pa.dictionary(pa.int8(), pa.binary())], ids=str)
def test_pictures_of_any_binary_type_are_read(tmp_path, kind):
    pictures = pa.array(table(["a", "b", "c"])["image"], pa.binary())
    stored = pictures.dictionary_encode() if pa.types.is_dictionary(kind) else pictures.cast(kind)
    write(tmp_path / "all.parquet", table(["a", "b", "c"], image=stored))
    listing = list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
    assert listing.read_part(listing.splits["train"][1:]).images["image"].to_pylist() == pictures.to_pylist()[1:]


def test_lists_of_fixed_size_with_a_missing_row_are_named(tmp_path):
    points = pa.array([[[1.0, 2.0]], None], pa.list_(pa.list_(pa.float32(), 2), 1))
    write(tmp_path / "all.parquet", table(["a", "b"], landmarks=points, visible=None))
    with pytest.raises(
        DataError, match="a column of lists of fixed size has a missing row; store it as lists of any size"
    ):
        list_parquet(Folder.at(tmp_path), {"all.parquet": "train"}, IngestOptions())
