"""Keypoints of a seeded sample of images, from which the rules are made that leave out outliers and background."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import KeypointsConfig
from ray_kplm.correspondence.outliers import KNNOutlierScore
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.keypoints import build_source
from ray_kplm.keypoints.source import Keypoints, KeypointSource
from ray_kplm.runtime.map_parts import Pool
from ray_kplm.runtime.tasks import run_tasks
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import load_arrays

_SAMPLE = 37
"""Of the seed of the sample: other images than quality is measured on."""


@dataclass
class FindKeypoints:
    """Runs the configured source of keypoints. Workers build it on first use; it is not pickled."""

    images: Folder
    landmarks: Folder
    config: KeypointsConfig
    seed: int
    _source: KeypointSource | None = None

    def __call__(self, part: str, rows: NDArray[np.int64]) -> tuple[pa.ChunkedArray, list[Keypoints]]:
        """Return the ids and the keypoints of rows of a part."""
        if self._source is None:
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
            self._source = build_source(self.config, self.landmarks, self.seed)
        table = self.images.read_table(part, list(self._source.columns)).take(pa.array(rows)).combine_chunks()
        return table["image_id"], self._source(part, table, rows)

    def sizes(self, part: str, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the width and height of the crops of rows of a part, pixels: (N, 2)."""
        return crop_sizes(self.images.read_table(part, ["width", "height"]).take(rows))


@dataclass(frozen=True)
class OutlierRule:
    """A sample of the category's descriptors float32 (N, d), and the distance to it above which a keypoint is an outlier."""

    sample: NDArray[np.float32]
    limit: float

    def to_bytes(self) -> bytes:
        """Return the rule as the content of an npz file."""
        buffer = io.BytesIO()
        np.savez(buffer, sample=self.sample, limit=self.limit)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> OutlierRule:
        """Return the rule of `to_bytes`."""
        arrays = load_arrays(content)
        return cls(arrays["sample"], float(arrays["limit"]))


class KeypointSample(NamedTuple):
    """The keypoints of a sample of images.

    Attributes:
        image: (N,), the image of each keypoint, from 0, ascending.
        xy: (N, 2), its position in the network's input, share of the side.
        descriptors: (N, d), unit norm.
    """

    image: NDArray[np.int64]
    xy: NDArray[np.float64]
    descriptors: NDArray[np.float32]

    def select(self, which: NDArray[np.bool_]) -> KeypointSample:
        """Return some of the keypoints."""
        return KeypointSample(self.image[which], self.xy[which], self.descriptors[which])


def sample_keypoints(find: FindKeypoints, selection: Selection, seed: int, pool: Pool) -> KeypointSample | None:
    """Return the keypoints of a seeded, bounded sample of images; None if they have no descriptors."""
    config = find.config
    sample = selection.sample(max(1, config.outlier_sample // config.limit), (seed, _SAMPLE), SAMPLE_PARTS)
    calls = [(find, part, rows) for part, rows in zip(sample.parts, sample.rows, strict=True)]
    pieces = dict(run_tasks(_sample_part, calls, at_most=len(calls), cpus=pool.cpus, gpus=pool.gpus))
    first = np.cumsum([0, *(len(rows) for rows in sample.rows)])
    found = [
        piece._replace(image=piece.image + first[number])
        for number in range(len(calls))
        if (piece := pieces[number]) is not None
    ]
    return KeypointSample(*map(np.concatenate, zip(*found, strict=True))) if found else None


def _sample_part(find: FindKeypoints, part: str, rows: NDArray[np.int64]) -> KeypointSample | None:
    """Return the keypoints of rows of a part; None if they have no descriptors, or there are none."""
    _, points = find(part, rows)
    counts = [0 if keypoints.descriptors is None else len(keypoints.xy) for keypoints in points]
    if not sum(counts):
        return None
    image = np.repeat(np.arange(len(points)), counts)
    described = [keypoints for keypoints in points if keypoints.descriptors is not None]
    xy = np.concatenate([keypoints.xy for keypoints in described])
    descriptors = np.concatenate(
        [keypoints.descriptors for keypoints in described if keypoints.descriptors is not None]
    )
    return KeypointSample(image, coordinates.in_square(xy, find.sizes(part, rows)[image]), descriptors)


def outlier_rule(descriptors: NDArray[np.float32], share: float) -> OutlierRule:
    """Return the rule by which this share of the descriptors (N, d) are outliers."""
    distance = KNNOutlierScore(descriptors).distance(descriptors)
    return OutlierRule(descriptors, float(np.quantile(distance, 1 - share)))
