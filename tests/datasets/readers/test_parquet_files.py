"""Rows of Parquet files: only the wanted ones are decoded, a few at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_kplm.datasets.readers import parquet_files
from ray_kplm.datasets.readers.parquet_files import Row, read_rows
from ray_kplm.storage import Folder


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)


@pytest.mark.parametrize("row_group_size", [1, 7, 100, 1000])
@pytest.mark.parametrize("rows", [[0], [299], [0, 6, 7, 8, 63, 64, 65, 128, 299], list(range(100, 200)), []])
def test_read_rows_gives_exactly_the_rows(tmp_path, row_group_size, rows):
    write(
        tmp_path / "t.parquet",
        {"image_id": list(range(300)), "x": list(range(300))},
        row_group_size=row_group_size,
    )
    found = read_rows(Folder.at(tmp_path), [Row("t.parquet", row) for row in rows], ("image_id", "unknown"))
    assert list(found) == [{"image_id": str(row)} for row in rows]


def test_read_rows_decodes_no_row_group_beyond_those_wanted(tmp_path, monkeypatch):
    write(tmp_path / "t.parquet", {"x": list(range(300))}, row_group_size=100)
    groups = []
    batches = parquet_files._batches
    monkeypatch.setattr(parquet_files, "_batches", lambda f, c, group: groups.append(group) or batches(f, c, group))
    assert list(read_rows(Folder.at(tmp_path), [Row("t.parquet", 150)], ("x",))) == [{"x": 150}]
    assert groups == [1]


def test_read_rows_holds_a_few_rows_not_the_row_group(tmp_path):
    noise = np.random.default_rng(0).bytes(100_000)
    pages = {"use_dictionary": False, "compression": "none", "write_batch_size": 16}
    write(tmp_path / "t.parquet", {"image": [noise] * 400}, **pages)
    before = pa.total_allocated_bytes()
    for _ in read_rows(Folder.at(tmp_path), [Row("t.parquet", 399)], ("image",)):
        assert pa.total_allocated_bytes() - before < 20e6  # of 40e6
