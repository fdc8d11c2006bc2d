"""What drift is looked for in, measured on images by the detector of a run: one row of `SCHEMA` each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.methods.cluster_predictor import ClusterPredictor, ClusterPredictorFactory
from ray_kplm.methods.inputs import make_inputs
from ray_kplm.methods.predictors import LandmarkPredictor, LandmarkPredictorFactory, OneWayPredictor
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.schemas import NONE
from ray_kplm.screening.drift_statistics import Measured
from ray_kplm.screening.image_statistics import image_statistics
from ray_kplm.screening.layouts import size_of

MEASURES_VERSION = 1
"""Version of what is measured. A reference of another version is measured anew."""
_ROTATE, _SCALE = 12.0, 0.9
"""Degrees and factor of the copy on which landmarks are looked for again: within what a training augments by."""
_PICTURE_SIDE = 160
_JPEG_QUALITY = 88

_NUMBERS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("picture", _NUMBERS, nullable=False),  # screening.image_statistics.STATISTICS
        pa.field("xy", _NUMBERS, nullable=False),  # (K, 2), flat, input frame
        pa.field("confidence", _NUMBERS, nullable=False),  # (K,)
        pa.field("sharpness", _NUMBERS, nullable=False),  # (K,)
        pa.field("probability", _NUMBERS, nullable=False),  # (K,), NaN: the detector has none
        *(
            pa.field(name, pa.float32(), nullable=False)  # NaN: not measured
            for name in ("motion_error", "mirror_error", "separation", "clusters_found", "facing")
        ),
        pa.field("group", pa.string()),  # the video or group that the image is of; null: of none
        pa.field("frame", pa.int64()),  # its index in the video; null: no frame
        pa.field("input", pa.binary(), nullable=False),  # the network's input, smaller, JPEG, RGB
    ]
)
"""`<run>/drift/reference/part-00000.parquet`: what was measured of the training images."""
_SCALARS = ("motion_error", "mirror_error", "separation", "clusters_found", "facing")


@dataclass(frozen=True)
class Detectors:
    """How the detectors of a run are built.

    Attributes:
        config: The run's, with `auto` decided.
        stage2: Of the landmarks.
        stage1: Of the last round's clusters, without the facing; None: the run has none any more.
    """

    config: Config
    stage2: LandmarkPredictorFactory
    stage1: ClusterPredictorFactory | None


class Meter:
    """Measures images with the detectors of a run."""

    def __init__(self, make: Detectors, placement: Placement) -> None:
        """Build the detectors."""
        self._config, self._side = make.config, make.config.network.image_size
        detector = make.stage2(placement)
        self._one_way = detector if isinstance(detector, OneWayPredictor) else None
        inner = detector.predictor if isinstance(detector, OneWayPredictor) else detector
        assert isinstance(inner, LandmarkPredictor), "of a run, which has the landmarks themselves"
        self._detector = inner
        alone = replace(make.stage2, flip=False, facing=None)(placement)
        assert isinstance(alone, LandmarkPredictor)
        self._alone = alone
        stage1 = None if make.stage1 is None else make.stage1(placement)
        self._stage1 = stage1 if isinstance(stage1, ClusterPredictor) else None
        self._partners = make.stage2.flip_map.astype(np.int64)
        self._sigma = make.config.stage2.heatmap_sigma
        centre = (self._side - 1) / 2
        self._moved = np.asarray(cv2.getRotationMatrix2D((centre, centre), _ROTATE, _SCALE), np.float64)

    def __call__(self, table: pa.Table, groups: Sequence[str | None], rows: NDArray[np.int64]) -> pa.Table:
        """Return the measures (`SCHEMA`) of the rows of a table of images, whose groups are given."""
        batches, done = [], 0
        for images, _, ids, boxes in make_inputs(table, rows, self._config):
            chosen = rows[done : done + len(ids)]
            done += len(ids)
            numbers = self._numbers(images, boxes)
            numbers["picture"] = np.stack([_picture(row) for row in table.take(chosen).to_pylist()])
            columns: dict[str, Any] = {name: np.asarray(v, np.float32).tolist() for name, v in numbers.items()}
            columns |= {
                "image_id": ids,
                "group": [groups[row] for row in chosen],
                "frame": table["frame"].take(chosen).to_pylist(),
                "input": [_encoded(image) for image in images],
            }
            arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
            batches.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
        return pa.concat_tables(batches) if batches else SCHEMA.empty_table()

    @torch.inference_mode()
    def _numbers(self, images: NDArray[np.uint8], boxes: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return what the detectors say of images: the columns of `SCHEMA` that are numbers."""
        facing = self._facing(images, boxes)
        turned = np.where((facing < 0)[:, None, None, None], images[:, :, ::-1], images)
        own, mirrored = self._detector.maps(turned)
        cells, confidence, probability = self._detector.inference.decode(own, mirrored)
        xy, alone = _points(cells), _points(heatmaps.decode(own, self._sigma)[0])
        peaks = torch.from_numpy(coordinates.input_to_heatmap(alone)).to(own)
        sharpness = heatmaps.sharpness(own.flatten(0, 1), peaks.flatten(0, 1)[:, None], self._sigma)
        unit = size_of(alone)
        copies = np.stack([self._copy(image) for image in turned])
        found = _points(heatmaps.decode(self._alone.maps(copies)[0], self._sigma)[0])
        mirror_error = np.full(len(images), np.nan)
        if mirrored is not None:
            back = coordinates.mirrored(_points(heatmaps.decode(mirrored, self._sigma)[0]), self._side)
            back = np.where((self._partners != NONE)[:, None], back[:, self._partners], np.nan)
            mirror_error = _error(alone, back, unit)
        away = (facing < 0)[:, None, None]
        return {
            "xy": np.where(away, coordinates.mirrored(xy, self._side), xy).reshape(len(images), -1),
            "confidence": confidence.cpu().numpy(),
            "sharpness": sharpness.view(confidence.shape).cpu().numpy(),
            "probability": probability.cpu().numpy(),
            "motion_error": _error(coordinates.apply(self._moved, alone), found, unit * _SCALE),
            "mirror_error": mirror_error,
            "facing": facing,
            **self._clusters(turned),
        }

    def _facing(self, images: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the facings of images, (N,); NaN for a category that is not seen from the side."""
        facing = None if self._one_way is None else self._one_way(images, boxes).facing
        return np.full(len(images), np.nan, np.float32) if facing is None else facing

    def _clusters(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return how near the keypoints of images are to their clusters, and the share of clusters that have one."""
        if self._stage1 is None:
            return dict.fromkeys(("separation", "clusters_found"), np.full(len(images), np.nan))
        separation = self._stage1.separation(images)
        known = np.isfinite(separation)
        total = np.where(known, separation, 0).sum(axis=1)
        mean = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
        return {"separation": mean, "clusters_found": known.mean(axis=1)}

    def _copy(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (self._side, self._side)
        return np.asarray(cv2.warpAffine(image, self._moved, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _points(cells_BK2: torch.Tensor) -> NDArray[np.float64]:
    """Return points of heatmaps in the input frame."""
    return coordinates.heatmap_to_input(cells_BK2.cpu().numpy()).astype(np.float64)


def _error(expected: NDArray[Any], found: NDArray[Any], unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean distance of landmarks (N, K, 2), each at most 1, in units (N,): (N,), NaN where none is in both."""
    distance = np.linalg.norm(expected - found, axis=2) / np.maximum(unit, 1e-6)[:, None]
    known = np.isfinite(distance)
    total = np.where(known, np.minimum(distance, 1), 0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def _picture(row: dict[str, Any]) -> NDArray[np.float64]:
    """Return the statistics of a stored image; its size is that of what was cut out of the picture, in the picture's pixels."""
    across, down = (float(np.hypot(row["crop_to_source"][i], row["crop_to_source"][3 + i])) for i in (0, 1))
    rgb = decode_crop(pa.scalar(row["image"], pa.binary()))
    return image_statistics(rgb, max(1, round(row["width"] * across)), max(1, round(row["height"] * down)))


def _encoded(image: NDArray[np.uint8]) -> bytes:
    """Return an input as a small JPEG."""
    if len(image) > _PICTURE_SIDE:
        image = np.asarray(cv2.resize(image, (_PICTURE_SIDE, _PICTURE_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    _, encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(encoded.tobytes())


def measured(table: pa.Table, side: int) -> Measured:
    """Return what a table (`SCHEMA`) holds, of at least one image, by the detector for inputs of `side` pixels."""

    def column(name: str) -> NDArray[np.float64]:
        return np.array(table[name].to_pylist(), np.float64)

    known: dict[str, int] = {}
    groups = [NONE if name is None else known.setdefault(name, len(known)) for name in table["group"].to_pylist()]
    return Measured(
        side,
        column("picture"),
        column("xy").reshape(table.num_rows, -1, 2),
        column("confidence"),
        column("sharpness"),
        column("probability"),
        **{name: column(name) for name in _SCALARS},
        group=np.array(groups, np.int64),
    )


def picture_of(table: pa.Table, row: int) -> NDArray[np.uint8]:
    """Return the picture (H, W, 3), RGB, that a table (`SCHEMA`) holds of an image."""
    return decode_crop(table["input"][row])
