"""Keypoints that were found elsewhere: the user's own, and the mixture of true and random points of the thesis's noise
experiment (5.4.2, Fig. 6.5)."""

from __future__ import annotations

import os

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
from ray_kplm.storage import Folder


class FromFile:
    """Parquet with the columns `image_id` and `xy` (a list of (x, y), pixels of the source image), optionally `score`.

    An image that the file does not know has no keypoints. Rows sorted by `image_id` are found fastest.
    """

    columns: tuple[str, ...] = ("image_id", "crop_to_source")

    def __init__(self, config: KeypointsConfig) -> None:
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
                f"keypoints.file = {config.file!r}: has no column {', '.join(sorted(missing))}; wanted are image_id, xy (a "
                f"list of (x, y) in pixels of the source image) and optionally score"
            )

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        names = [name for name in ("image_id", "xy", "score") if name in self._table.schema.names]
        ids = images["image_id"].combine_chunks()
        found = self._table.to_table(names, filter=pc.is_in(pc.field("image_id"), value_set=ids))
        given = {row["image_id"]: row for row in found.to_pylist()}
        return [
            self._keypoints(given.get(image_id), np.array(to_source, np.float64).reshape(2, 3))
            for image_id, to_source in zip(ids.to_pylist(), images["crop_to_source"].to_pylist(), strict=True)
        ]

    def _keypoints(self, row: dict | None, crop_to_source: coordinates.Affine) -> Keypoints:
        if row is None or not row["xy"]:
            return Keypoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), None)
        xy = np.array(row["xy"], np.float64)
        score = np.ones(len(xy)) if row.get("score") is None else np.array(row["score"], np.float64)
        if xy.ndim != 2 or xy.shape[1] != 2 or len(score) != len(xy):
            raise DataError(
                f"{self._config.file}: {row['image_id']} has xy of shape {xy.shape} and {len(score)} scores; wanted are a list "
                f"of (x, y) and as many scores"
            )
        usable = np.isfinite(xy).all(axis=1)
        order = np.flatnonzero(usable)[np.argsort(-score[usable], kind="stable")][: self._config.limit]
        there = coordinates.apply(coordinates.invert(crop_to_source), xy[order])
        return Keypoints(there.astype(np.float32), score[order].astype(np.float32), None)


class TruthMix:
    """Annotated points, moved a little, of which a share is replaced by random places in the image.

    For experiments on noise alone: it is the only source that sees annotation.
    """

    columns: tuple[str, ...] = ("image_id", "width", "height")

    def __init__(self, config: KeypointsConfig, landmarks: Folder, seed: int) -> None:
        if not landmarks.exists():
            raise ConfigError(
                f"keypoints.detector = 'noisy_gt': {landmarks.parent} has no annotated landmarks to mix from"
            )
        self._config, self._landmarks, self._seed = config, landmarks, seed

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        truth = self._landmarks.read_table(part, ["landmarks"]).take(pa.array(rows))["landmarks"].to_pylist()
        number = int(part.removeprefix("part-").split(".")[0])
        sides = zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True)
        return [
            self.derive_seed(np.array(xy, np.float64).reshape(-1, 2), np.array(side), (self._seed, number, int(row)))
            for xy, side, row in zip(truth, sides, rows, strict=True)
        ]

    def derive_seed(self, truth: NDArray, side: NDArray, seed: tuple[int, ...]) -> Keypoints:
        config, rng = self._config, np.random.default_rng(seed)
        known = truth[np.isfinite(truth).all(axis=1)]
        chosen = rng.permutation(len(known))[: config.limit]
        shift = config.truth_shift * side.max()
        moved = known[chosen] + rng.uniform(-shift, shift, (len(chosen), 2))
        anywhere = rng.uniform(0, 1, (len(chosen), 2)) * (side - 1)
        real = rng.random(len(chosen)) < config.truth_share
        xy = np.clip(np.where(real[:, None], moved, anywhere), 0, side - 1)
        return Keypoints(xy.astype(np.float32), np.ones(len(xy), np.float32), None)
