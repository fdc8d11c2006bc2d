"""Predicted landmarks as CSV: a line for each detected landmark."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from ray_kplm.inference.export.predictions import Predictions, Tables
from ray_kplm.inference.export.written_files import write_text
from ray_kplm.storage import Folder
from ray_kplm.storage.csv_cells import to_cell

FILE = "landmarks.csv"


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `landmarks.csv`."""
    write_text(target, FILE, to_csv(found.tables))
    return []


def to_csv(tables: Tables) -> Iterator[str]:
    """Yield a CSV file in pieces, with a line for each detected landmark.

    Coordinates are source pixels with pixel centres at integers. The probability is empty where the detector has no model of
    it; `found` is `true` or `false`. An id that a spreadsheet would take for a formula has an apostrophe before it, see
    `csv_cells`.
    """
    yield "image_id,landmark,x,y,confidence,probability,found\n"
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
                    text.write(f"{cell},{landmark},{x:.3f},{y:.3f},{confidence:.4f},{chance},{is_there}\n")
        yield text.getvalue()
