"""Annotated points with noise (`keypoints.detector: noisy_gt`), for the thesis's noise experiment (5.4.2, Fig. 6.5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_kplm.config import KeypointsConfig
from ray_kplm.datasets.missing_marks import COLUMNS, find_marks
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints.source import Keypoints
from ray_kplm.storage import Folder


class NoisyGroundTruth:
    """Annotated points, slightly moved, of which a share is replaced by random places in the image.

    It is for experiments on label noise, and the only source of keypoints that reads annotation.
    """

    columns: tuple[str, ...] = ("image_id", *COLUMNS)

    def __init__(self, config: KeypointsConfig, landmarks: Folder, seed: int) -> None:
        """Take the annotation of a split.

        Args:
            config: Number, shift and share of the annotated points.
            landmarks: The split's annotation (schemas.LANDMARKS).
            seed: Draws the noise.

        Raises:
            ConfigError: The dataset has no annotation.
        """
        if not landmarks.exists():
            raise ConfigError(
                f"keypoints.detector = 'noisy_gt': {landmarks.parent} has no annotated landmarks; ingest it with "
                f"--landmarks FILE"
            )
        self._config, self._landmarks, self._seed = config, landmarks, seed

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        """Return the noisy points of each image; the noise of an image depends on the seed and its row alone."""
        table = self._landmarks.read_table(part, ["landmarks"]).take(pa.array(rows))
        flat = pc.list_flatten(pc.list_flatten(table["landmarks"])).to_numpy()
        truth = flat.reshape(len(rows), -1, 2).astype(np.float64)
        truth[find_marks(truth, images).missing] = np.nan
        number = int(part.removeprefix("part-").split(".")[0])
        sides = zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True)
        return [
            self._add_noise(xy, np.array(side), (self._seed, number, int(row)))
            for xy, side, row in zip(truth, sides, rows, strict=True)
        ]

    def _add_noise(self, truth: NDArray[np.float64], side: NDArray[Any], seed: tuple[int, ...]) -> Keypoints:
        """Return the noisy points of one image.

        Args:
            truth: (L, 2), annotated points, crop frame; NaN: not annotated.
            side: (2,), width and height of the crop, pixels.
            seed: Of the image's noise.
        """
        config, rng = self._config, np.random.default_rng(seed)
        known = truth[np.isfinite(truth).all(axis=1)]
        chosen = rng.permutation(len(known))[: config.limit]
        shift = config.truth_shift * side.max()
        moved = known[chosen] + rng.uniform(-shift, shift, (len(chosen), 2))
        anywhere = rng.uniform(0, 1, (len(chosen), 2)) * (side - 1)
        real = rng.random(len(chosen)) < config.truth_share
        xy = np.clip(np.where(real[:, None], moved, anywhere), 0, side - 1)
        return Keypoints(xy.astype(np.float32), np.ones(len(xy), np.float32), None)
