"""Keypoints from a file of the user's own (`keypoints.detector: file`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import fs as pafs

from ray_kplm.config import KeypointsConfig
from ray_kplm.datasets.columns import NAME, NUMBERS, POINTS, Kind, check_column, read_column
from ray_kplm.datasets.readers.joins import ImageNames, join_note, spellings
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging import coordinates
from ray_kplm.keypoints.source import Keypoints

_KINDS: dict[str, Kind] = {"image_id": NAME, "xy": POINTS, "score": NUMBERS}
_LARGEST = 1e9
"""No picture has a point so far away, px."""


class FileSource:
    """A Parquet file with the columns `image_id` and `xy` (a list of (x, y), source frame), and optionally `score`.

    Several rows of an image, as of several animals in a frame, are joined. An image that the file does not contain has no
    keypoints. Reading is fastest if the rows are sorted by `image_id`.
    """

    columns: tuple[str, ...] = ("image_id", "crop_to_source")

    def __init__(self, config: KeypointsConfig) -> None:
        """Open the file `keypoints.file`, a path or a URI.

        Raises:
            ConfigError: It is no readable Parquet file, lacks a column, or has one of another type.
        """
        self._config = config
        self._where = f"keypoints.file = {config.file!r}"
        try:
            if "://" in config.file:
                filesystem, path = pafs.FileSystem.from_uri(config.file)
            else:
                filesystem, path = pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(config.file))
            import pyarrow.dataset as pads  # imports pandas where it is installed

            self._table = pads.dataset(path, filesystem=filesystem, format="parquet")
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{self._where}: not a readable Parquet file ({_reason(error)})") from None
        names = self._table.schema.names
        missing = {"image_id", "xy"} - set(names)
        if missing:
            raise ConfigError(
                f"{self._where}: has no column {', '.join(sorted(missing))}; it needs image_id, xy (a list "
                f"of (x, y) in pixels of the source image) and optionally score"
            )
        try:
            for name in (name for name in _KINDS if name in names):
                check_column(self._table.schema.field(name), _KINDS[name], self._where)
        except DataError as error:
            raise ConfigError(str(error)) from None

    def match(self, image_ids: Iterable[str]) -> str:
        """Return what is said of the join with images: how many rows name one.

        Args:
            image_ids: All images of the split, as those that are not looked at are images, too.

        Raises:
            ConfigError: No row names an image.
        """
        names = ImageNames(image_ids)
        rows, unmatched = 0, []
        for row in self._rows(["image_id"]):
            rows += 1
            if names.find(row["image_id"]) is None:
                unmatched.append(row["image_id"] or "")
        if not rows:
            raise ConfigError(f"{self._where}: has no rows")
        try:
            return join_note("keypoints.file", rows, unmatched, names)[0]
        except DataError as error:
            raise ConfigError(str(error)) from None

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        """Return the strongest `keypoints.limit` keypoints of each image, in the crop frame."""
        ids = images["image_id"].to_pylist()
        image_of = {spelling: image_id for image_id in ids for spelling in reversed(spellings(image_id))}
        image_of |= {image_id: image_id for image_id in ids}
        found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
        for row in self._rows([name for name in _KINDS if name in self._table.schema.names], list(image_of)):
            if (image_id := image_of.get(row["image_id"])) is not None:
                found.setdefault(image_id, []).append(self._points(row))
        affines = (np.array(affine, np.float64).reshape(2, 3) for affine in images["crop_to_source"].to_pylist())
        return [self._keypoints(found.get(i, []), affine) for i, affine in zip(ids, affines, strict=True)]

    def _rows(self, columns: list[str], wanted: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield rows of the file, at least those of the wanted ids; None: all."""
        condition = None if wanted is None else _condition(self._table.schema.field("image_id").type, wanted)
        try:
            for batch in self._table.to_batches(columns=columns, filter=condition):
                arrays = [
                    read_column(field, column, _KINDS[field.name], self._where)
                    for field, column in zip(batch.schema, batch.columns, strict=True)
                ]
                yield from pa.RecordBatch.from_arrays(arrays, batch.schema.names).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self._where}: not readable ({_reason(error)})") from None

    def _points(self, row: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the points (N, 2) and the scores (N,) of a row; NaN where one is missing."""
        lists = [(np.nan, np.nan) if point is None else point for point in row["xy"] or ()]
        widths = {len(point) for point in lists} or {2}
        xy = np.array(lists, np.float64).reshape(-1, 2) if widths == {2} else None
        scores = np.ones(len(lists)) if row.get("score") is None else np.array(row["score"], np.float64)
        if xy is None or len(scores) != len(xy):
            shape = f"{len(lists)} x {' or '.join(map(str, sorted(widths)))}"
            raise DataError(
                f"{self._where}: {row['image_id']} has xy of shape {shape} and {len(scores)} scores; give a list of (x, y) "
                f"and as many scores"
            )
        return xy, scores

    def _keypoints(
        self, rows: list[tuple[NDArray[np.float64], NDArray[np.float64]]], crop_to_source: coordinates.Affine
    ) -> Keypoints:
        """Return the keypoints of the rows of one image; points that are not finite are dropped."""
        xy = np.concatenate([np.zeros((0, 2)), *(xy for xy, _ in rows)])
        score = np.nan_to_num(np.concatenate([np.zeros(0), *(score for _, score in rows)]))
        usable = (np.abs(xy) < _LARGEST).all(axis=1)  # neither is NaN
        order = np.flatnonzero(usable)[np.argsort(-score[usable], kind="stable")][: self._config.limit]
        crop_xy = coordinates.apply(coordinates.invert(crop_to_source), xy[order])
        return Keypoints(crop_xy.astype(np.float32), score[order].astype(np.float32), None)


def _condition(kind: pa.DataType, wanted: Sequence[str]) -> pc.Expression | None:
    """Return the filter of rows by their ids, None for a type that Arrow does not look up."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.is_in(pc.field("image_id"), value_set=pa.array(wanted, kind))
    if pa.types.is_integer(kind):
        numbers = [int(text) for text in wanted if text.lstrip("-").isascii() and text.lstrip("-").isdigit()]
        numbers = [number for number in numbers if -(2**63) <= number < 2**63]
        return pc.is_in(pc.field("image_id").cast(pa.int64()), value_set=pa.array(numbers, pa.int64()))
    return None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split(". Detail")[0].split())
