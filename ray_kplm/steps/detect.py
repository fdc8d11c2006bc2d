"""The first step: generic keypoints of the training images, outliers removed (thesis 6.3.4, METHOD 2)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import faiss
import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from ray_kplm import contracts
from ray_kplm.config import KeypointsConfig
from ray_kplm.correspondence.features import ragged, ragged_points
from ray_kplm.correspondence.outliers import Commonness
from ray_kplm.datasets.selection import Selection
from ray_kplm.keypoints import build_detector
from ray_kplm.keypoints.base import Keypoints
from ray_kplm.steps.images import decode
from ray_kplm.steps.parts import Pool, Progress, map_parts
from ray_kplm.storage import Folder

_RULE = "outliers.npz"


@dataclass(frozen=True)
class OutlierRule:
    """A sample of the category's descriptors float32 (N, d), and the distance above which a keypoint is unlike all others."""

    sample: NDArray[np.float32]
    limit: float

    def packed(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, sample=self.sample, limit=self.limit)
        return buffer.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> OutlierRule:
        with np.load(io.BytesIO(content)) as arrays:
            return cls(arrays["sample"], float(arrays["limit"]))


def detect(
    images: Folder,
    target: Folder,
    selection: Selection,
    config: KeypointsConfig,
    seed: int,
    pool: Pool,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the keypoints (contracts.KEYPOINTS) of the selected images; returns what was found."""
    rule = _outlier_rule(images, selection, config, seed, pool)
    if rule:
        target.write_bytes(_RULE, rule.packed())
    answers = map_parts(DetectPart, {"images": images, "target": target, "config": config}, selection, pool, progress)
    total = {key: sum(int(answer[key]) for answer in answers) for key in ("images", "found", "kept", "empty")}
    return {
        "images": total["images"],
        "images_without_keypoints": total["empty"],
        "found_per_image": total["found"] / max(total["images"], 1),
        "points_per_image": total["kept"] / max(total["images"], 1),
    }


class DetectPart:
    """Keypoints of one part."""

    def __init__(self, images: Folder, target: Folder, config: KeypointsConfig) -> None:
        cv2.setNumThreads(1)
        faiss.omp_set_num_threads(1)
        self._images, self._target = images, target
        self._detector = build_detector(config)
        rule = OutlierRule.unpacked(target.read_bytes(_RULE)) if target.is_file(_RULE) else None
        self._commonness = Commonness(rule.sample) if rule else None
        self._limit = rule.limit if rule else np.inf

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, int]:
        if self._target.is_file(part):
            kept = self._target.read_table(part, ["score"])["score"].combine_chunks().value_lengths().to_numpy()
            return {
                "images": len(kept),
                "found": int(kept.sum()),
                "kept": int(kept.sum()),
                "empty": int((kept < 2).sum()),
            }
        table = _read_rows(self._images, part, rows)
        points = [self._detector(image, box) for image, box in _pictures(table)]
        kept = [self._without_outliers(keypoints) for keypoints in points]
        counts = np.array([len(k.xy) for k in kept], np.int64)
        columns = [
            table["image_id"],
            ragged_points(np.concatenate([k.xy for k in kept]), counts),
            ragged(np.concatenate([k.score for k in kept]), counts),
        ]
        self._target.write_table(part, pa.Table.from_arrays(columns, schema=contracts.KEYPOINTS))
        found = sum(len(k.xy) for k in points)
        return {"images": len(kept), "found": found, "kept": int(counts.sum()), "empty": int((counts < 2).sum())}

    def _without_outliers(self, keypoints: Keypoints) -> Keypoints:
        if self._commonness is None or keypoints.descriptors is None:
            return keypoints
        keep = self._commonness.distance(keypoints.descriptors) <= self._limit
        return Keypoints(keypoints.xy[keep], keypoints.score[keep], None)


def _outlier_rule(
    images: Folder, selection: Selection, config: KeypointsConfig, seed: int, pool: Pool
) -> OutlierRule | None:
    """From the descriptors of a seeded, bounded sample of images; None if no keypoint is to go."""
    if config.outlier_share == 0:
        return None
    sample = selection.sample(max(1, config.outlier_sample // config.limit), (seed, 23))
    pieces = [
        _sample_descriptors.remote(images, part, rows, config)
        for part, rows in zip(sample.parts, sample.rows, strict=True)
    ]
    descriptors = np.concatenate(ray.get(pieces))
    if not len(descriptors):
        return None
    distance = Commonness(descriptors).distance(descriptors)
    return OutlierRule(descriptors, float(np.quantile(distance, 1 - config.outlier_share)))


@ray.remote(num_cpus=1)
def _sample_descriptors(images: Folder, part: str, rows: NDArray, config: KeypointsConfig) -> NDArray[np.float32]:
    cv2.setNumThreads(1)
    detector = build_detector(config)
    found = [detector(image, box).descriptors for image, box in _pictures(_read_rows(images, part, rows))]
    return np.concatenate([d for d in found if d is not None])


def _read_rows(images: Folder, part: str, rows: NDArray) -> pa.Table:
    return images.read_table(part, ["image_id", "image", "box"]).take(pa.array(rows)).combine_chunks()


def _pictures(table: pa.Table) -> list[tuple[NDArray[np.uint8], NDArray | None]]:
    boxes = table["box"].to_pylist()
    return [
        (decode(encoded), None if box is None else np.array(box, np.float32))
        for encoded, box in zip(table["image"], boxes, strict=True)
    ]
