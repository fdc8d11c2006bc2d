"""Cells of landmarks.csv: ids as they are found on disks, read back by a CSV reader."""

import csv
import io

import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.inference.export.landmarks_csv import to_csv
from ray_kplm.storage.csv_cells import from_cell, to_cell

FORMULAS = [
    "=HYPERLINK(\"http://a\",\"b\").jpg", "+1+1.png", "-2+3.png", "@SUM(A1).jpg", "\t=1.png", "\r=1.png", "-cat.jpg", "--5",
    "+", "-", "=", "\n@x", "\uff1d1+1",
]  # fmt: skip
NUMBERS = ["-5", "+1e3", "-0.25", "-.5", "42"]
PLAIN = [
    "a.jpg",
    "sub/a,b.jpg",
    'say "x".png',
    "two\nlines",
    "cr\rhere",
    "it's.jpg",
    "'quoted'",
    "ünï/çödé.png",
    " =1",
    "",
]
APOSTROPHES = ["'=1", "''-x", "'@"]


@pytest.mark.parametrize("text", [*FORMULAS, *NUMBERS, *PLAIN, *APOSTROPHES])
def test_a_text_is_one_cell_and_is_read_back(text):
    (row,) = csv.reader(io.StringIO(f"{to_cell(text)},1\n", newline=""))
    assert len(row) == 2
    assert from_cell(row[0]) == text


@pytest.mark.parametrize("text", [*FORMULAS, *APOSTROPHES])
def test_a_formula_begins_with_an_apostrophe(text):
    (row,) = csv.reader(io.StringIO(f"{to_cell(text)}\n", newline=""))
    assert row[0] == f"'{text}"


@pytest.mark.parametrize("text", [*NUMBERS, *PLAIN])
def test_numbers_and_other_texts_are_as_they_are(text):
    (row,) = csv.reader(io.StringIO(f"{to_cell(text)},\n", newline=""))
    assert row[0] == text


def test_landmarks_of_odd_ids_are_rows_of_seven_cells():
    ids = [*FORMULAS, *NUMBERS, *PLAIN]
    rows = [
        {
            "image_id": name,
            "xy": [[-1.5, 2.0], [float("nan"), float("nan")]],
            "confidence": [0.5, 0.1],
            "probability": [0.9, 0.2],
            "found": [True, False],
            "width": 8,
            "height": 8,
        }
        for name in ids
    ]
    table = pa.Table.from_pylist(rows, schemas.SOURCE_LANDMARKS)
    lines = list(csv.reader(io.StringIO("".join(to_csv(lambda: [table])), newline="")))
    assert lines[0] == ["image_id", "landmark", "x", "y", "confidence", "probability", "found"]
    assert [from_cell(line[0]) for line in lines[1:]] == ids
    assert {tuple(line[1:]) for line in lines[1:]} == {("0", "-1.500", "2.000", "0.5000", "0.9000", "true")}
    assert not any(line[0][:1] in "=+-@\t\r" and line[0] not in NUMBERS for line in lines[1:] if line[0])
