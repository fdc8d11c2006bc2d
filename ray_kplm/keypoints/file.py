"""Keypoints from a file of the user's own (`keypoints.detector: file`)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray
from pyarrow import fs as pafs

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging import coordinates
from ray_kplm.keypoints.source import Keypoints


class FileSource:
    """A Parquet file with the columns `image_id` and `xy` (a list of (x, y), source frame), and optionally `score`.

    An image that the file does not contain has no keypoints. Reading is fastest if the rows are sorted by `image_id`.
    """

    columns: tuple[str, ...] = ("image_id", "crop_to_source")

    def __init__(self, config: KeypointsConfig) -> None:
        """Open the file `keypoints.file`, a path or a URI.

        Raises:
            ConfigError: It is no readable Parquet file or lacks a column.
        """
        self._config = config
        try:
            if "://" in config.file:
                filesystem, path = pafs.FileSystem.from_uri(config.file)
            else:
                filesystem, path = pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(config.file))
            self._table = pads.dataset(path, filesystem=filesystem, format="parquet")
        except (OSError, pa.ArrowException) as error:
            reason = str(error).split(". Detail")[0].splitlines()[0]
            raise ConfigError(f"keypoints.file = {config.file!r}: not a readable Parquet file ({reason})") from None
        missing = {"image_id", "xy"} - set(self._table.schema.names)
        if missing:
            raise ConfigError(
                f"keypoints.file = {config.file!r}: has no column {', '.join(sorted(missing))}; it needs image_id, xy (a list "
                f"of (x, y) in pixels of the source image) and optionally score"
            )

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        """Return the strongest `keypoints.limit` keypoints of each image, in the crop frame."""
        names = [name for name in ("image_id", "xy", "score") if name in self._table.schema.names]
        ids = images["image_id"].combine_chunks()
        table = self._table.to_table(names, filter=pc.is_in(pc.field("image_id"), value_set=ids))
        row_of = {row["image_id"]: row for row in table.to_pylist()}
        return [
            self._keypoints(row_of.get(image_id), np.array(to_source, np.float64).reshape(2, 3))
            for image_id, to_source in zip(ids.to_pylist(), images["crop_to_source"].to_pylist(), strict=True)
        ]

    def _keypoints(self, row: dict[str, Any] | None, crop_to_source: coordinates.Affine) -> Keypoints:
        """Return the keypoints of one row of the file; points that are not finite are dropped."""
        if row is None or not row["xy"]:
            return Keypoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), None)
        xy = np.array(row["xy"], np.float64)
        score = np.ones(len(xy)) if row.get("score") is None else np.array(row["score"], np.float64)
        if xy.ndim != 2 or xy.shape[1] != 2 or len(score) != len(xy):
            raise DataError(
                f"{self._config.file}: {row['image_id']} has xy of shape {xy.shape} and {len(score)} scores; give a list of "
                f"(x, y) and as many scores"
            )
        usable = np.isfinite(xy).all(axis=1)
        order = np.flatnonzero(usable)[np.argsort(-score[usable], kind="stable")][: self._config.limit]
        crop_xy = coordinates.apply(coordinates.invert(crop_to_source), xy[order])
        return Keypoints(crop_xy.astype(np.float32), score[order].astype(np.float32), None)
