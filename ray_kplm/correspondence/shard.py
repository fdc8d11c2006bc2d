"""The part of the pseudo-label update that happens next to the descriptors (docs/method.md 3, steps 2 and 3; docs/method.md 5).

A shard owns some parts of a round's features. It answers with sums, counts and samples, never with anything an image has.
What it has found so far (which keypoints stay, their landmark) is a function of the centroids that it was given, so a shard
that died can be built again and brought to the same state by the same calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.correspondence import duplicates, flip, hungarian, kmeans, static
from ray_kplm.correspondence.assignment import (
    BLOCK,
    Assigner,
    Search,
    as_float32,
    faiss_search,
    squared_distance,
)
from ray_kplm.correspondence.features import Features, ragged, ragged_points, read_features
from ray_kplm.correspondence.hungarian import Spread
from ray_kplm.correspondence.reduction import Reducible
from ray_kplm.correspondence.static import Positions
from ray_kplm.errors import DataError
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

_HELD_SHARE = 0.75
_WORKING_BYTES = 192 * 2**20
"""Of the memory budget, a share less what libraries and blocks take is for descriptors that stay; the rest is for the part that
is being read."""
_FIT, _START = 1, 2
"""What a seeded share is drawn for."""


@dataclass(frozen=True)
class Contents(Reducible):
    """What a shard's parts hold: images, keypoints, and how many of these have no usable descriptor (NaN or zero)."""

    images: int
    keypoints: int
    unusable: int


@dataclass(frozen=True)
class Filtered(Reducible):
    """What the first duplicate filter did on a shard: keypoints before and after, the flip counts (K, K), and where in the
    network's input those that stayed were."""

    images: int
    detected: int
    kept: int
    flip_counts: NDArray[np.int64]
    positions: Positions


@dataclass(frozen=True)
class Labelled(Reducible):
    """What was written as labels: training keypoints, images with at least two, landmark counts (K,)."""

    trained: int
    usable_images: int
    landmark_counts: NDArray[np.int64]


class DescriptorShard:
    """Owns parts of features. The descriptors of a fit are held in memory up to a budget; the parts beyond it are read again
    in every pass."""

    def __init__(
        self,
        features: Folder,
        parts: list[str],
        *,
        memory_bytes: int,
        seed: int,
        threads: int = 1,
        search: Search | None = None,
    ) -> None:
        self._folder, self._parts = features, parts
        self._budget, self._seed, self._threads, self._search = memory_bytes, seed, threads, search or faiss_search()
        self._share, self._mirrored = 1.0, True
        self._held: dict[str, NDArray[np.float16]] = {}
        self._landmark: dict[str, NDArray[np.int16]] = {}  # of every keypoint; NONE: not in any more
        self._excluded: dict[str, NDArray[np.bool_]] = {}  # keypoints that no fit shall see again
        self._dim = 0

    def begin(self) -> Contents:
        """Look at all parts once and leave out the keypoints without a usable descriptor."""
        total = Contents(0, 0, 0)
        self._landmark, self._excluded = {}, {}
        for part, features in self._read():
            usable = self._usable(part, features)
            self._landmark[part] = np.where(usable, 0, NONE).astype(np.int16)
            total += Contents(len(features.counts), len(usable), int((~usable).sum()))
        return total

    def begin_fit(self, share: float, mirrored: bool = True) -> kmeans.Size:
        """From now on `sample` and `partial` are about a seeded share of the descriptors still in, plain and mirrored ones."""
        self._share, self._mirrored, self._held = share, mirrored, {}
        known = sum(landmark.nbytes for landmark in self._landmark.values())
        total, room = kmeans.Size(0, 0), self._budget * _HELD_SHARE - _WORKING_BYTES - known
        for part in self._parts:
            points = self._fitted(part)
            total += kmeans.size_of(_blocks(points))
            if points.nbytes <= room:
                self._held[part] = points
                room -= points.nbytes
        return total

    def sample(self, share: float) -> list[tuple[str, NDArray[np.float16]]]:
        """A seeded share of each part's fit, part by part, so that the union does not depend on the shards."""
        return [(part, _thinned(points, share, self._rng(part, _START))) for part, points in self._fit()]

    def partial(self, centroids: NDArray[np.float32]) -> kmeans.Partial:
        """This shard's contribution to a K-means iteration."""
        blocks = (block for _, points in self._fit() for block in _blocks(points, self._search.block))
        return kmeans.partial(blocks, centroids, search=self._search, threads=self._threads)

    def filter_landmarks(self, centroids: NDArray[np.float32]) -> Filtered:
        """Assign all keypoints to the K centroids and keep, for each landmark of an image, the nearest one."""
        k, assign = len(centroids), Assigner(centroids, self._search)
        total = Filtered(0, 0, 0, np.zeros((k, k), np.int64), static.positions(np.zeros(0, int), np.zeros((0, 2)), k))
        for part, features in self._read():
            usable = self._landmark[part] != NONE
            landmark = self._assigned(features.descriptors, usable, assign)
            flipped = self._assigned(features.descriptors_flipped, usable, assign)
            distance = squared_distance(features.descriptors, centroids, landmark)
            keep = duplicates.keep_nearest(features.image, landmark, distance)
            self._landmark[part] = np.where(keep, landmark, NONE).astype(np.int16)
            counts = flip.flip_counts(landmark[usable], flipped[usable], k)
            where = static.positions(landmark[keep], features.xy_square[keep], k)
            total += Filtered(len(features.counts), len(landmark), int(keep.sum()), counts, where)
        return total

    def exclude(self, centroids: NDArray[np.float32], unwanted: NDArray[np.bool_]) -> int:
        """Leave out the keypoints whose nearest of these centroids is unwanted (K,), for good; how many.

        All others are in again: for a new fit after `filter_landmarks`.
        """
        excluded, assign = 0, Assigner(centroids, self._search)
        for part, features in self._read():
            usable = self._usable(part, features)
            cluster = self._assigned(features.descriptors, usable, assign)
            out = usable & unwanted[cluster]
            self._excluded[part] = self._excluded[part] | out if part in self._excluded else out
            self._landmark[part] = np.where(usable & ~out, 0, NONE).astype(np.int16)
            excluded += int(out.sum())
        return excluded

    def label(self, centroids: NDArray[np.float32], landmarks: int, labels: Folder) -> Labelled:
        """Assign what was kept to the M centroids, drop duplicates again and write the parts of labels."""
        total, assign = Labelled(0, 0, np.zeros(landmarks, np.int64)), Assigner(centroids, self._search)
        for part, features in self._read():
            keep = self._landmark[part] != NONE
            image, landmark = features.image[keep], self._landmark[part][keep]
            cluster = self._unique_clusters(image, features.descriptors[keep], assign)
            flipped = self._unique_clusters(image, features.descriptors_flipped[keep], assign)
            labels.write_table(part, _labels_table(features, keep, landmark, cluster, flipped))
            total += _labelled(features, image, cluster, np.bincount(landmark, minlength=landmarks))
        return total

    def spread(self, centroids: NDArray[np.float32]) -> Spread:
        """How far the keypoints of each cluster are from its centroid (chapter 5)."""
        nothing = np.zeros(len(centroids), np.int64)
        total, assign = Spread(nothing, nothing, nothing), Assigner(centroids, self._search)
        for part, features in self._read():
            points = features.descriptors[self._landmark[part] != NONE]
            cluster = assign(points)
            total += hungarian.spread(cluster, squared_distance(points, centroids, cluster), len(centroids))
        return total

    def label_matches(self, centroids: NDArray[np.float32], cutoff: NDArray[np.float64], labels: Folder) -> Labelled:
        """Match each image's keypoints with the M clusters, drop those beyond the cut-off, and write the parts of labels.

        Chapter 5: a cluster is at once a landmark and what is trained on; nothing is mirrored.
        """
        total = Labelled(0, 0, np.zeros(len(centroids), np.int64))
        for part, features in self._read():
            usable = self._landmark[part] != NONE
            counts = np.bincount(features.image[usable], minlength=len(features.counts))
            found = np.full(len(usable), NONE, np.int16)
            found[usable] = hungarian.match(counts, features.descriptors[usable], centroids, cutoff)
            keep = found != NONE
            cluster, image = found[keep], features.image[keep]
            labels.write_table(part, _labels_table(features, keep, cluster, cluster, np.full_like(cluster, NONE)))
            total += _labelled(features, image, cluster, np.bincount(cluster, minlength=len(centroids)))
        return total

    # -- reading

    def _read(self) -> Iterator[tuple[str, Features]]:
        """All parts in order, one in memory at a time."""
        for part in self._parts:
            features = read_features(self._folder, part)
            dim = features.descriptors.shape[1]
            if self._dim not in (0, dim):
                raise DataError(
                    f"{self._folder}/{part}: descriptors of {dim} numbers where other parts have {self._dim}; delete the "
                    f"round's features folder to redo it"
                )
            self._dim = dim
            yield part, features

    def _fit(self) -> Iterator[tuple[str, NDArray[np.float16]]]:
        """The descriptors that a fit sees, part by part: held, or read again."""
        for part in self._parts:
            yield part, self._held[part] if part in self._held else self._fitted(part)

    def _fitted(self, part: str) -> NDArray[np.float16]:
        features = read_features(self._folder, part)
        keep = self._landmark[part] != NONE
        points = features.descriptors[keep]
        if self._mirrored:
            points = np.concatenate([points, features.descriptors_flipped[keep]])
        return _thinned(points, self._share, self._rng(part, _FIT))

    def _rng(self, part: str, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, int(part.removeprefix("part-").split(".")[0]), purpose])

    def _usable(self, part: str, features: Features) -> NDArray[np.bool_]:
        usable = _with_descriptors(features)
        return usable & ~self._excluded[part] if part in self._excluded else usable

    # -- assigning

    def _assigned(self, descriptors: NDArray, usable: NDArray, assign: Assigner) -> NDArray[np.int32]:
        """The nearest cluster of the usable keypoints, NONE of the others."""
        cluster = np.full(len(descriptors), NONE, np.int32)
        cluster[usable] = assign(descriptors[usable])
        return cluster

    def _unique_clusters(self, image: NDArray, descriptors: NDArray, assign: Assigner) -> NDArray[np.int16]:
        """The nearest cluster, NONE where another keypoint of the image is nearer to it: (N,)."""
        cluster = assign(descriptors)
        keep = duplicates.keep_nearest(image, cluster, squared_distance(descriptors, assign.centroids, cluster))
        return np.where(keep, cluster, NONE).astype(np.int16)


def _blocks(points: NDArray, rows: int = BLOCK) -> Iterator[NDArray]:
    for start in range(0, len(points), rows):
        yield points[start : start + rows]


def _thinned(points: NDArray, share: float, rng: np.random.Generator) -> NDArray:
    return points if share >= 1 else points[rng.random(len(points)) < share]


def _with_descriptors(features: Features) -> NDArray[np.bool_]:
    """Keypoints whose descriptors, plain and mirrored, are finite and not zero: (N,)."""
    both = (features.descriptors, features.descriptors_flipped)
    # The sum of magnitudes is NaN or infinite if an entry is.
    size = [np.abs(as_float32(descriptors)).sum(axis=1) for descriptors in both]
    return np.isfinite(size[0]) & np.isfinite(size[1]) & (size[0] > 0) & (size[1] > 0)


def _labelled(features: Features, image: NDArray, cluster: NDArray, landmark_counts: NDArray) -> Labelled:
    trained = np.bincount(image[cluster != NONE], minlength=len(features.counts))
    return Labelled(int(trained.sum()), int((trained >= 2).sum()), landmark_counts)


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
    return pa.Table.from_arrays(columns, schema=schemas.LABELS)
