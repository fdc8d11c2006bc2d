"""The frozen network's keypoints and descriptors, part by part (docs/method.md 3, step 1).

The threshold is calibrated where the network runs, by the processes that extract: each part of a small sample is done by
whichever comes to it first, and its peaks are left on storage for the others, and for a run that continues.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import ComputeConfig, Config
from ray_kplm.correspondence.features import features_table, keypoints_table
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import crop_sizes, decode_crop, letterbox
from ray_kplm.methods.base import Method
from ray_kplm.methods.extractor import calibrated_threshold
from ray_kplm.methods.trainer import NETWORK, load_weights
from ray_kplm.network.compute import Placement
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.storage import Folder

_CALIBRATION = "calibration"
"""Folder of the peaks of the sample, below that of the features while they are made."""
_NOWHERE = np.zeros((0, 2), np.float32)

Inputs = tuple[NDArray[np.uint8], list[coordinates.Affine], list[str]]


@dataclass(frozen=True)
class Extraction:
    """All an extraction worker needs. sample: the images on which the threshold is calibrated, to so many points. known: labels
    whose points are described beside the detected ones. `features` are keypoints alone where the generation has no
    descriptors."""

    method: Method
    round_number: int
    network: Folder
    images: Folder
    sample: Selection
    points_per_landmark: float
    features: Folder
    known: Folder | None = None

    @property
    def config(self) -> Config:
        return self.method.config


def extract(
    extraction: Extraction, selection: Selection, progress: ProgressCallback = ignore_progress
) -> dict[str, Any]:
    """Write the features of the selected images; returns the threshold that was used and what was found."""
    compute = extraction.config.compute
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    answers = map_parts(ExtractPart, {"extraction": extraction}, selection, pool, progress)
    (extraction.features / _CALIBRATION).delete()
    images = sum(int(answer["images"]) for answer in answers)
    keypoints = sum(int(answer["keypoints"]) for answer in answers)
    return {
        "threshold": float(answers[0]["threshold"]),
        "images": images,
        "detected_per_image": keypoints / max(images, 1),
        "mean_peak": float(np.average([a["mean_peak"] for a in answers], weights=[a["images"] for a in answers])),
    }


def calibration_sample(selection: Selection, config: Config) -> Selection:
    """Return the images on which the threshold is chosen: of few parts, and the same whatever does the work."""
    return selection.sample(config.detection.calibration_images, (config.seed, 29), SAMPLE_PARTS)


class ExtractPart:
    """Holds the network. All processes find the same threshold, from the peaks of one sample that they share."""

    def __init__(self, extraction: Extraction) -> None:
        self._work = extraction
        placement = worker_placement(extraction.config.compute)
        weights = load_weights(extraction.network.read_bytes(NETWORK))
        self._finder = extraction.method.finder(weights, placement, extraction.round_number)
        self._threshold = self._calibrate()

    def _calibrate(self) -> float:
        config = self._work.config
        options = config.detection
        if options.threshold == "fixed":
            return options.fixed_threshold
        wanted = self._work.points_per_landmark * config.method.landmarks
        return calibrated_threshold(np.concatenate(self._sample_scores()), self._work.sample.images, wanted)

    def _sample_scores(self) -> list[NDArray[np.float32]]:
        """Heights of the sample's peaks, part by part. Nobody waits for a part that another process has begun, which may have
        died: in the worst case it is done twice."""
        sample, shared = self._work.sample, self._work.features / _CALIBRATION
        for i in np.random.default_rng().permutation(len(sample.parts)):  # so that processes meet at the end only
            part = sample.parts[i]
            if not shared.is_file(part):
                scores = [self._finder.scores(images) for images, _, _ in self._batches(part, sample.rows[i])]
                shared.write_table(part, pa.table({"score": np.concatenate(scores)}))
        return [table["score"].to_numpy() for table in shared.read_tables(sample.parts)]

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, float]:
        found, ids, peaks = [], [], []
        known = self._known(part)
        for images, crop_to_input, names in self._batches(part, rows):
            extra = None
            if known is not None:
                extra = [
                    coordinates.apply(a, known.get(n, _NOWHERE)) for n, a in zip(names, crop_to_input, strict=True)
                ]
            batch = self._finder.find(images, self._threshold, extra)
            found += [
                keypoints.in_crop(coordinates.invert(affine))
                for keypoints, affine in zip(batch, crop_to_input, strict=True)
            ]
            peaks += [float(k.score.max(initial=0)) for k in batch]
            ids += names
        counts = np.array([len(k.xy) for k in found], np.int64)
        joined = [np.concatenate([getattr(k, name) for k in found]) for name in
                  ("xy", "score", "descriptors", "descriptors_flipped")]  # fmt: skip
        if self._work.method.describes:
            sizes = crop_sizes(self._work.images.read_table(part, ["width", "height"]).take(rows))
            table = features_table(ids, sizes, counts, *joined)
        else:
            table = keypoints_table(ids, counts, *joined[:2])
        self._work.features.write_table(part, table)
        return {
            "images": len(ids),
            "keypoints": int(counts.sum()),
            "threshold": self._threshold,
            "mean_peak": float(np.mean(peaks)),
        }

    def _known(self, part: str) -> dict[str, NDArray[np.float32]] | None:
        """Points of the last labels in the crop frame, by image; not all images need have some."""
        folder = self._work.known
        if folder is None or not folder.is_file(part):
            return None if folder is None else {}
        table = folder.read_table(part, ["image_id", "xy"])
        points = (np.asarray(xy, np.float32).reshape(-1, 2) for xy in table["xy"].to_pylist())
        return dict(zip(table["image_id"].to_pylist(), points, strict=True))

    def _batches(self, part: str, rows: NDArray) -> Iterator[Inputs]:
        """Batches of a part's chosen rows: inputs uint8 (B, S, S, 3), crop -> input maps, image ids."""
        yield from read_inputs(self._work.images, part, rows, self._work.config)


def worker_placement(compute: ComputeConfig) -> Placement:
    """Where a worker in this process runs the network; it takes its share of the node's cores."""
    cv2.setNumThreads(1)
    torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.extract_workers))
    return Placement.choose(
        compute, torch.device("cuda" if torch.cuda.is_available() and compute.gpus_per_worker else "cpu")
    )


def read_inputs(images: Folder, part: str, rows: NDArray, config: Config) -> Iterator[Inputs]:
    """Batches of a part's rows: inputs uint8 (B, S, S, 3), their `crop_to_input` maps, their image ids."""
    yield from inputs(images.read_table(part, ["image_id", "image"]), rows, config)


def inputs(table: pa.Table, rows: NDArray, config: Config) -> Iterator[Inputs]:
    """The same, of a table of images."""
    size, batch = config.network.image_size, config.compute.batch_images
    for start in range(0, len(rows), batch):
        chosen = table.take(rows[start : start + batch])
        made = [letterbox(decode_crop(encoded), size) for encoded in chosen["image"]]
        yield np.stack([image for image, _ in made]), [affine for _, affine in made], chosen["image_id"].to_pylist()
