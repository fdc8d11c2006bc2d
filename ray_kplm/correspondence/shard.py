"""The part of the pseudo-label update that happens next to the descriptors (METHOD 3, steps 2 and 3).

A shard owns some parts of a round's features. It answers with sums, counts and samples, never with anything an image has.
What an update has found so far (which keypoints stay, their landmark) is a function of the centroids it was given, so a
shard that died can be built again and brought to the same state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import contracts
from ray_kplm.contracts import NONE
from ray_kplm.correspondence import duplicates, flip, kmeans
from ray_kplm.correspondence.features import Features, ragged, ragged_points, read_features
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Filtered:
    """What the first duplicate filter did on a shard: keypoints before and after, and the flip counts (K, K)."""

    images: int
    detected: int
    kept: int
    flip_counts: NDArray[np.int64]

    def __add__(self, other: Filtered) -> Filtered:
        return Filtered(
            self.images + other.images,
            self.detected + other.detected,
            self.kept + other.kept,
            self.flip_counts + other.flip_counts,
        )


@dataclass(frozen=True)
class Labelled:
    """What the second duplicate filter left on a shard: training keypoints, images with at least two, landmark counts (K,)."""

    trained: int
    usable_images: int
    landmark_counts: NDArray[np.int64]

    def __add__(self, other: Labelled) -> Labelled:
        return Labelled(
            self.trained + other.trained,
            self.usable_images + other.usable_images,
            self.landmark_counts + other.landmark_counts,
        )


class DescriptorShard:
    """Owns parts of features; holds what fits its memory budget, and reads the rest again in each pass."""

    def __init__(self, features: Folder, parts: list[str], memory_bytes: int, seed: int) -> None:
        self._folder = features
        self._parts = parts
        self._budget = memory_bytes
        self._seed = seed
        self._held: dict[str, Features] = {}
        self._landmark: dict[str, NDArray[np.int16]] = {}  # of every keypoint; NONE: dropped as a duplicate

    def count(self) -> int:
        """Descriptors to fit on: two a keypoint that is still in (its own and the mirrored one)."""
        return sum(2 * int(self._kept(part, features).sum()) for part, features in self._read())

    def sample(self, share: float) -> list[tuple[str, NDArray[np.float16]]]:
        """A seeded share of each part's descriptors, part by part, so that the union does not depend on the shards."""
        return [(part, self._fitted(part, features, share, "start")) for part, features in self._read()]

    def partial(self, centroids: NDArray[np.float32], share: float) -> kmeans.Partial:
        """This shard's contribution to a K-means iteration on a seeded share of the descriptors."""
        blocks = (self._fitted(part, features, share, "fit") for part, features in self._read())
        return kmeans.partial(blocks, centroids)

    def filter_landmarks(self, centroids: NDArray[np.float32]) -> Filtered:
        """Assign all keypoints to the K centroids and keep, for each landmark of an image, the nearest one."""
        k = len(centroids)
        total = Filtered(0, 0, 0, np.zeros((k, k), np.int64))
        for part, features in self._read():
            landmark, distance = kmeans.assign(features.descriptors, centroids)
            flipped, _ = kmeans.assign(features.descriptors_flipped, centroids)
            keep = duplicates.keep_nearest(features.image, landmark, distance)
            self._landmark[part] = np.where(keep, landmark, NONE).astype(np.int16)
            counts = flip.flip_counts(landmark, flipped, k)
            total += Filtered(len(features.counts), len(landmark), int(keep.sum()), counts)
        return total

    def label(self, centroids: NDArray[np.float32], landmarks: int, labels: Folder) -> Labelled:
        """Assign what was kept to the M centroids, drop duplicates again and write the parts of labels."""
        total = Labelled(0, 0, np.zeros(landmarks, np.int64))
        for part, features in self._read():
            keep = self._kept(part, features)
            image, landmark = features.image[keep], self._landmark[part][keep]
            cluster = self._unique_clusters(image, features.descriptors[keep], centroids)
            flipped = self._unique_clusters(image, features.descriptors_flipped[keep], centroids)
            labels.write_table(part, _labels_table(features, keep, landmark, cluster, flipped))
            trained = np.bincount(image[cluster != NONE], minlength=len(features.counts))
            total += Labelled(int(trained.sum()), int((trained >= 2).sum()), np.bincount(landmark, minlength=landmarks))
        return total

    @staticmethod
    def _unique_clusters(image: NDArray, descriptors: NDArray, centroids: NDArray[np.float32]) -> NDArray[np.int16]:
        cluster, distance = kmeans.assign(descriptors, centroids)
        keep = duplicates.keep_nearest(image, cluster, distance)
        return np.where(keep, cluster, NONE).astype(np.int16)

    def _read(self) -> Iterator[tuple[str, Features]]:
        """All parts in order; as many as the budget allows stay in memory."""
        for part in self._parts:
            features = self._held.get(part) or read_features(self._folder, part)
            held = sum(f.nbytes for f in self._held.values())
            if part not in self._held and held + features.nbytes <= self._budget:
                self._held[part] = features
            yield part, features

    def _kept(self, part: str, features: Features) -> NDArray[np.bool_]:
        if part not in self._landmark:
            return np.ones(len(features.xy), dtype=bool)
        return self._landmark[part] != NONE

    def _fitted(self, part: str, features: Features, share: float, purpose: str) -> NDArray[np.float16]:
        """The descriptors of a part that a fit sees: plain and mirrored, of the keypoints still in."""
        keep = self._kept(part, features)
        both = np.concatenate([features.descriptors[keep], features.descriptors_flipped[keep]])
        if share >= 1:
            return both
        rng = np.random.default_rng([self._seed, int(part.removeprefix("part-").split(".")[0]), len(purpose)])
        return both[rng.random(len(both)) < share]


def _labels_table(features: Features, keep: NDArray, landmark: NDArray, cluster: NDArray, flipped: NDArray) -> pa.Table:
    counts = np.bincount(features.image[keep], minlength=len(features.counts))
    columns = [
        features.image_id,
        ragged_points(features.xy[keep], counts),
        ragged(features.score[keep], counts),
        ragged(landmark, counts),
        ragged(cluster, counts),
        ragged(flipped, counts),
    ]
    return pa.Table.from_arrays(columns, schema=contracts.LABELS)
