"""Predicted landmarks as CSV: a line for each detected landmark."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np

from ray_kplm.inference.export.predictions import Predictions, Tables
from ray_kplm.inference.export.written_files import write_text
from ray_kplm.storage import Folder
from ray_kplm.storage.csv_cells import to_cell

FILE = "landmarks.csv"


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `landmarks.csv`."""
    write_text(target, FILE, to_csv(found.tables, found.layout.names if found.layout.is_named else ()))
    return []


def to_csv(tables: Tables, names: Sequence[str] = ()) -> Iterator[str]:
    """Yield a CSV file in pieces, with a line for each detected landmark. With names there is a last column `name`.

    Coordinates are source pixels with pixel centres at integers. The probability is empty where the detector has no model of
    it; `found` is `true` or `false`. An id or a name that a spreadsheet would take for a formula has an apostrophe before it,
    see `csv_cells`.
    """
    last = [f",{to_cell(name)}" for name in names]
    yield f"image_id,landmark,x,y,confidence,probability,found{',name' if last else ''}\n"
    for table in tables():
        text = io.StringIO()
        for row in table.to_pylist():
            cell = to_cell(row["image_id"])
            probability = row["probability"] or [None] * len(row["xy"])
            columns = zip(row["xy"], row["confidence"], probability, row["found"], strict=True)
            for landmark, ((x, y), confidence, likely, is_found) in enumerate(columns):
                if np.isfinite(x):
                    chance = "" if likely is None else f"{likely:.4f}"
                    is_there = "true" if is_found else "false"
                    line = f"{cell},{landmark},{x:.3f},{y:.3f},{confidence:.4f},{chance},{is_there}"
                    text.write(f"{line}{last[landmark] if last else ''}\n")
        yield text.getvalue()
