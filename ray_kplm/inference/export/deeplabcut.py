"""Predicted landmarks as DeepLabCut's tables, CSV and HDF5: a row for each picture, columns by bodypart and coordinate."""

from __future__ import annotations

import importlib
import posixpath
from collections.abc import Iterator
from typing import Any

import numpy as np

from ray_kplm.inference.export.predictions import Picture, Predictions
from ray_kplm.inference.export.written_files import local_file
from ray_kplm.storage import Folder

pd: Any = importlib.import_module("pandas")  # without types of its own

FOLDER = "dlc"
IMAGES = "landmarks"
"""Name of the tables of pictures that are no frames of videos."""
SCORER = "ray_kplm"
KEY = "df_with_missing"
"""Under which DeepLabCut stores a table in HDF5."""
_COORDINATES = ("x", "y", "likelihood")


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `dlc/landmarks.csv` and `.h5` of pictures, and `dlc/<video>.csv` and `.h5` of each video.

    x and y are source pixels with pixel centres at integers, as DeepLabCut's labels are; NaN where not detected. The
    likelihood is the probability of being found, or else the confidence. Rows are named `labeled-data/<folder>/<file>` as
    in a project, and by the number of the frame for a video. Where a picture has several objects, the columns have
    DeepLabCut's further level, `individuals`. A table is in memory as a whole.
    """
    groups: dict[str, list[Picture]] = {}
    for picture in found.pictures():
        groups.setdefault(_table_name(picture), []).append(picture)
    for name, pictures in groups.items():
        table = _table(pictures, found)
        with local_file(target / FOLDER, f"{name}.h5") as path:
            table.to_hdf(path, key=KEY, mode="w")
        joined = table.set_axis(["/".join(row) if isinstance(row, tuple) else row for row in table.index], axis=0)
        with local_file(target / FOLDER, f"{name}.csv") as path:
            joined.to_csv(path, float_format="%.5f", encoding="utf-8")
    return []


def _table_name(picture: Picture) -> str:
    return IMAGES if picture.sequence is None else posixpath.splitext(picture.sequence)[0].replace("/", "_")


def _table(pictures: list[Picture], found: Predictions) -> Any:
    """Return the DataFrame of pictures."""
    individuals = max(len(picture.objects) for picture in pictures)
    values = np.full((len(pictures), individuals, len(found.layout), 3), np.nan)
    for row, picture in enumerate(pictures):
        for number, one in enumerate(picture.objects):
            values[row, number, :, :2], values[row, number, :, 2] = one.xy, one.likelihood
    return pd.DataFrame(
        values.reshape(len(pictures), -1), _index(pictures, found.layout.category), _columns(found, individuals)
    )


def _columns(found: Predictions, individuals: int) -> Any:
    levels: list[Any] = [[SCORER], list(found.layout.names), _COORDINATES]
    if individuals == 1:
        return pd.MultiIndex.from_product(levels, names=["scorer", "bodyparts", "coords"])
    levels.insert(1, [f"individual{number + 1}" for number in range(individuals)])
    return pd.MultiIndex.from_product(levels, names=["scorer", "individuals", "bodyparts", "coords"])


def _index(pictures: list[Picture], category: str) -> Any:
    if pictures[0].sequence is not None:
        return pd.Index([picture.frame for picture in pictures])
    return pd.MultiIndex.from_tuples(list(_paths(pictures, category)))


def _paths(pictures: list[Picture], category: str) -> Iterator[tuple[str, str, str]]:
    for picture in pictures:
        folder, name = posixpath.split(picture.file)
        yield "labeled-data", folder or category, name
