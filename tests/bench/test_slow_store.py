"""Requests to an object store, counted: how many reading a part of a table costs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.bench.slow_store import slow_store
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import CheckedFolder

NAMES = [f"part-{part:05d}.parquet" for part in range(4)]


@pytest.fixture
def units(tmp_path):
    """A slow store with tables of few bytes, `labels`, and of many, `images`."""
    rng = np.random.default_rng(0)
    ids = [str(i) for i in range(200)]
    for name, table in {
        "labels": pa.table({"image_id": ids, "landmark": [[0, 1]] * 200}),
        "images": pa.table({"image_id": ids, "image": [rng.bytes(6_000) for _ in ids]}),
    }.items():
        unit = CheckedFolder.of(Folder.at(tmp_path) / name, "")
        for part in NAMES:
            unit.write_table(part, table)
        unit.publish({})
    with slow_store(str(tmp_path)) as store:
        yield store, {name: CheckedFolder.of(store.folder / name, "") for name in ("labels", "images")}


@pytest.mark.parametrize(
    ("unit", "columns", "wanted", "most_bytes"),
    [("labels", ["landmark"], 2, 20_000), ("images", ["image_id"], 3, 100_000), ("images", ["image"], 2, 1_300_000)],
)
def test_a_part_costs_few_requests(units, unit, columns, wanted, most_bytes):
    store, folders = units
    folders[unit].read_table(NAMES[0], columns)  # with the manifest, and what there is to learn of the folder
    requests, sent = store.requests, store.bytes
    tables = folders[unit].read_tables(NAMES[1:], columns)
    assert [table.column_names for table in tables] == [columns] * 3
    assert len(tables[0]) == 200
    assert store.requests - requests == 3 * wanted
    assert (store.bytes - sent) / 3 < most_bytes


def test_files_that_are_not_there_are_named(units):
    store, _ = units
    with pytest.raises(FileNotFoundError):
        store.folder.read_bytes("nothing")
    assert not store.folder.exists("nothing")
