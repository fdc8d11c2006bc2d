"""Tables of users: CSV as spreadsheets write it and Parquet of any types are read as they are meant, or named in one line."""

from __future__ import annotations

import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_kplm.datasets import columns as kinds
from ray_kplm.datasets.readers.tables import read_user_table
from ray_kplm.errors import DataError

BOXES = {"image": kinds.NAME, **dict.fromkeys(("x0", "y0", "x1", "y1"), kinds.COORDINATE)}
FRAMES = {"image": kinds.NAME, "sequence": kinds.LABEL, "frame": kinds.WHOLE}
HEAD = "image,x0,y0,x1,y1\n"
ROWS = "007.jpg,5,5,60,60\n1e5.jpg,1.5,2,3,4e0\n"
EXPECTED = [("007.jpg", 5, 5, 60, 60), ("1e5.jpg", 1.5, 2, 3, 4)]


def read(tmp_path, content, columns=BOXES, name="b.csv", optional=None):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_user_table(str(tmp_path / name), columns, optional)


def rows(read_table) -> list[tuple]:
    return [tuple(row.values()) for row in read_table.table.to_pylist()]


@pytest.mark.parametrize(
    "content",
    [
        HEAD + ROWS,
        (HEAD + ROWS).replace("\n", "\r\n"),
        (HEAD + ROWS).replace("\n", "\r"),
        (HEAD + ROWS).encode("utf-8-sig"),
        (HEAD + ROWS).encode("utf-16"),
        (HEAD + ROWS).encode("utf-16-be"),
        (HEAD + ROWS).encode("utf-32"),
        (HEAD + ROWS).replace(",", ";"),
        "sep=;\n" + (HEAD + ROWS).replace(",", ";"),
        (HEAD + ROWS).replace(",", ";").replace("1.5", "1,5"),
        (HEAD + ROWS).replace(",", "\t"),
        (HEAD + ROWS).replace(",", "|"),
        (HEAD + ROWS).replace(",", ", "),
        (HEAD + ROWS).replace(",", " ,\t "),
        "\n\n" + HEAD + "\n" + ROWS.replace("\n", "\n\n"),
        (HEAD + ROWS).replace("\n", ",,\n").replace(HEAD.strip() + ",,", HEAD.strip()),
        '"image","x0","y0","x1","y1"\n"007.jpg","5","5","60","60"\n"1e5.jpg","1.5","2","3","4e0"\n',
        "note,image,x0,y0,x1,y1\n" + ROWS.replace("007", '"two\nlines, one cell",007').replace("1e5", ",1e5"),
    ],
)
def test_a_table_of_boxes_is_read_however_it_is_written(tmp_path, content):
    found = read(tmp_path, content)
    assert rows(found) == EXPECTED
    assert not found.faults
    assert not found.notes


def test_text_is_never_read_as_something_else(tmp_path):
    names = ["007", "1e5", "NA", "true", "2024-01-01", "None", "0x10", "+1", " padded"]
    lines = "".join(f"{name},{name},{i}\n" for i, name in enumerate(names))
    found = read(tmp_path, "image,sequence,frame\n" + lines, FRAMES)
    assert found.table["image"].to_pylist() == [name.strip() for name in names] == found.table["sequence"].to_pylist()
    assert found.table["frame"].to_pylist() == list(range(9))


def test_cells_that_hold_no_number_are_missing_and_an_empty_sequence_is_none(tmp_path):
    cells = ("", "NA", "NaN", "None", "null", "n/a", "-")
    found = read(tmp_path, HEAD + "".join(f"a.jpg,{cell},2,3,4\n" for cell in cells))
    assert [row[1] for row in rows(found)] == [None] * len(cells)
    found = read(tmp_path, "image,sequence,frame\na,,1\nb,NA,\n", FRAMES)
    assert rows(found) == [("a", None, 1), ("b", "NA", None)]


def test_a_bad_row_is_a_fault_with_its_line_and_the_others_are_used(tmp_path):
    found = read(tmp_path, HEAD + "a.jpg,1,2,3\n" + ROWS + "b.jpg,1,2,3,4,5\nc.jpg,left,2,3,4\n")
    assert rows(found) == EXPECTED
    assert [(at.removeprefix(str(tmp_path)), reason) for at, reason in found.faults] == [
        ("/b.csv line 2", "bad row: 4 cells where the heading has 5"),
        ("/b.csv line 5", "bad row: 6 cells where the heading has 5"),
        ("/b.csv line 6", "bad row: column x0 holds 'left', which is no number"),
    ]
    found = read(tmp_path, "image,sequence,frame\na,v,1.0\nb,v,1.5\nc,v,7\nd,v,1e30\n", FRAMES)
    assert rows(found) == [("a", "v", 1), ("c", "v", 7)]
    assert found.faults[0][1] == "bad row: column frame holds '1.5', which is no whole number"


def test_a_heading_that_is_repeated_in_the_table_is_left_out_and_said(tmp_path):
    found = read(tmp_path, HEAD + ROWS + HEAD + ROWS)
    assert rows(found) == EXPECTED * 2
    assert found.notes == [f"{tmp_path}/b.csv: the heading stands 2 times; its repetitions are left out"]


def test_latin_1_is_read_and_said(tmp_path):
    found = read(tmp_path, (HEAD + "Müller.jpg,1,2,3,4\n").encode("latin-1"))
    assert rows(found) == [("Müller.jpg", 1, 2, 3, 4)]
    assert found.notes == [f"{tmp_path}/b.csv: is no UTF-8; it is read as Latin-1 (Windows-1252)"]


def zipped(tmp_path) -> bytes:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    return (tmp_path / "z").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", HEAD.strip() + ",image\n" + ROWS.replace("\n", ",z\n"), "column image stands twice in the heading"),
        ("b.csv", "Image,X0,y0,x1,y1\n" + ROWS, "no column image, x0; it has Image, X0, y0, x1, y1"),
        ("b.csv", ROWS, "no column image, x0, y0, x1, y1; it has 007.jpg"),
        ("b.csv", HEAD + '"a.jpg,1,2,3,4\n' + ROWS, "line 4: bad row: 1 cells .*; no row can be read"),
        ("b.csv", HEAD + "a.jpg,x,2,3,4\n" * 3, "line 2: bad row: column x0 holds 'x', which is no number; no row can"),
        ("b.csv", bytes(range(128, 256)) * 9 + b"\x01\x02", "no column image.*; it has no text"),
        ("b.csv", "", "is empty; it needs the columns image, x0, y0, x1, y1"),
        ("b.csv", " \n\n", "is empty"),
        ("b.csv", HEAD + "a.jpg,1,2,3,4,5\n" + "b.jpg,one,2,3,4\n", "line 2: bad row: 6 cells .*; no row can be read"),
        ("b.csv", None, "is an Excel or ZIP file; save the sheet as CSV"),
        ("b.xlsx", None, "is an Excel or ZIP file"),
        ("b.csv.gz", b"\x1f\x8b\x08\0\0\0", "is compressed; unpack it"),
        ("b.feather", b"ARROW1\0\0", "is an Arrow or Feather file"),
        ("b.parquet", HEAD + ROWS, "is no Parquet file"),
        ("b.parquet", b"PAR1" + bytes(40), "b.parquet: "),
        ("b.csv", b"\xff\xfe" + HEAD.encode("utf-16-le") + b"a", "is cut off or no text"),
        ("b.csv", HEAD + '"' + "a" * 200_000 + ",1,2,3,4\n", "not readable as CSV"),
    ],
)
def test_another_file_is_one_line_with_its_name(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, zipped(tmp_path) if content is None else content, name=name)
    assert str(caught.value).startswith(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {"image": pa.array(["7", "8"], pa.large_string())},
        {"image": pa.array(["7", "8"], pa.string_view())},
        {"image": pa.array(["7", "8"]).dictionary_encode()},
        {"image": pa.array([7, 8], pa.uint8())},
        {"x0": pa.array(np.array([1.5, 2], np.float16))},
        {"x0": pa.array([1.5, 2]).cast(pa.decimal128(9, 3))},
        {"x0": pa.array([1.5, 2], pa.float32()), "y0": pa.array([5, 5], pa.uint64())},
    ],
    ids=lambda t: " ".join(str(a.type) for a in t.values()),
)
def test_parquet_columns_of_any_type_are_read(tmp_path, table):
    plain = {"image": ["7", "8"], "x0": [1.5, 2.0], "y0": [5, 5], "x1": [60, 60], "y1": [60, 60]}
    pq.write_table(pa.table({**plain, **table}), tmp_path / "b.parquet")
    assert rows(read_user_table(str(tmp_path / "b.parquet"), BOXES)) == [("7", 1.5, 5, 60, 60), ("8", 2, 5, 60, 60)]


def test_a_table_of_pandas_is_read_without_its_index_and_with_its_nan(tmp_path):
    frame = pd.DataFrame({"image": ["a", "b"], "sequence": [0, 1], "frame": [3.0, float("nan")], "yaw": [1.5, 2]})
    frame.set_index(pd.Index([5, 9])).to_parquet(tmp_path / "f.parquet")
    found = read_user_table(str(tmp_path / "f.parquet"), FRAMES)
    assert found.table.to_pylist() == [
        {"image": "a", "sequence": "0", "frame": 3, "yaw": 1.5},
        {"image": "b", "sequence": "1", "frame": None, "yaw": 2},
    ]


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"x0": ["1", "2"]}, "column x0 must be a number, is string"),
        ({"image": [1.5, 2.5]}, "column image must be text or whole numbers, is double"),
        ({"image": [b"\xff", b"a"]}, "column image must be text or whole numbers, is binary"),
        ({"y1": [None, [1.0]]}, "column y1 must be a number, is list"),
    ],
)
def test_a_parquet_column_of_another_type_is_named(tmp_path, replaced, message):
    plain = {"image": ["7", "8"], "x0": [1.5, 2.0], "y0": [5, 5], "x1": [60, 60], "y1": [60, 60]}
    pq.write_table(pa.table({**plain, **replaced}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=rf"b\.parquet: {message}"):
        read_user_table(str(tmp_path / "b.parquet"), BOXES)
