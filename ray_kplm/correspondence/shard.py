"""The pseudo-label update, the part that reads the descriptors (docs/method.md 3, steps 2 and 3; docs/method.md 5).

A shard owns some parts of a round's features. Its methods return sums, counts and samples, and write the labels of its images.
Its state (which keypoints are kept, and their landmarks) is a function of the centroids that it got, so a shard that was lost
can be built again and brought to the same state by the same calls.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from ray_kplm.correspondence.shard_results import Contents, Filtered, Labelled
from ray_kplm.errors import DataError
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

_CACHE_SHARE = 0.75
_WORKING_BYTES = 192 * 2**20
"""This share of the memory budget, less the memory of libraries and blocks, is for descriptors kept between passes. The rest is
for the part that is being read."""
_FIT, _START = 1, 2
"""Purposes of a seeded draw: the share of the descriptors to fit, the sample for the starts."""


class DescriptorShard:
    """The owner of some parts of features.

    The descriptors of a fit are kept in memory up to a budget; the parts beyond it are read again in every pass.
    """

    def __init__(
        self,
        features: Folder,
        parts: list[str],
        *,
        memory_bytes: int,
        seed: int,
        threads: int = 1,
        search: Search | None = None,
        one_way: bool = False,
    ) -> None:
        """Take over parts of features; nothing is read yet.

        Args:
            features: Folder of the round's features.
            parts: Names of this shard's parts.
            memory_bytes: Memory budget.
            seed: Seed of the samples.
            threads: Threads that assign points.
            search: The search of the assignments; default: Faiss on the CPU.
            one_way: Whether the features are of images as they face one way. A keypoint's cluster is then the same in the
                mirror image.
        """
        self._folder, self._parts = features, parts
        self._budget, self._seed, self._threads, self._search = memory_bytes, seed, threads, search or faiss_search()
        self._one_way = one_way
        self._share, self._mirrored = 1.0, True
        self._cached: dict[str, NDArray[np.float16]] = {}
        self._landmark: dict[str, NDArray[np.int16]] = {}  # of every keypoint; NONE: dropped
        self._excluded: dict[str, NDArray[np.bool_]] = {}  # keypoints that are left out of all later fits
        self._dim = 0

    def begin(self) -> Contents:
        """Read all parts once and drop the keypoints without a usable descriptor."""
        total = Contents(0, 0, 0)
        self._landmark, self._excluded = {}, {}
        for part, features in self._read():
            usable = self._usable(part, features)
            self._landmark[part] = np.where(usable, 0, NONE).astype(np.int16)
            total += Contents(len(features.counts), len(usable), int((~usable).sum()))
        return total

    def begin_fit(self, share: float, mirrored: bool = True) -> kmeans.PointTotals:
        """Choose the descriptors that `sample` and `partial` use from now on.

        Args:
            share: Share of the kept keypoints' descriptors, drawn by seed.
            mirrored: Whether the descriptors of the mirror images are included.
        """
        self._share, self._mirrored, self._cached = share, mirrored, {}
        known = sum(landmark.nbytes for landmark in self._landmark.values())
        total, free_bytes = kmeans.PointTotals(0, 0), self._budget * _CACHE_SHARE - _WORKING_BYTES - known
        for part in self._parts:
            points = self._read_fit_points(part)
            total += kmeans.point_totals(_blocks(points))
            if points.nbytes <= free_bytes:
                self._cached[part] = points
                free_bytes -= points.nbytes
        return total

    def sample(self, share: float) -> list[tuple[str, NDArray[np.float16]]]:
        """Draw a seeded share of each part's descriptors, so that the union does not depend on the number of shards."""
        return [(part, _draw_share(points, share, self._rng(part, _START))) for part, points in self._fit_points()]

    def partial(self, centroids: NDArray[np.float32]) -> kmeans.Partial:
        """Return this shard's contribution to a K-means iteration with these centroids."""
        blocks = (block for _, points in self._fit_points() for block in _blocks(points, self._search.block))
        return kmeans.partial(blocks, centroids, search=self._search, threads=self._threads)

    def filter_landmarks(self, centroids: NDArray[np.float32]) -> Filtered:
        """Assign all keypoints to the K centroids and keep the nearest keypoint of each landmark in each image."""
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
            places = static.positions(landmark[keep], features.xy_square[keep], k)
            total += Filtered(len(features.counts), len(landmark), int(keep.sum()), counts, places)
        return total

    def exclude(self, centroids: NDArray[np.float32], unwanted: NDArray[np.bool_]) -> int:
        """Leave out the keypoints of unwanted clusters from all later fits, and keep all others for a new fit.

        Args:
            centroids: (K, d).
            unwanted: (K,).

        Returns:
            The number of keypoints left out by this call.
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
        """Assign the kept keypoints to the M centroids, drop duplicates again and write the parts of labels.

        Args:
            centroids: (M, d).
            landmarks: Number of landmarks K.
            labels: Folder of the labels.
        """
        total, assign = Labelled(0, 0, np.zeros(landmarks, np.int64)), Assigner(centroids, self._search)
        for part, features in self._read():
            keep = self._landmark[part] != NONE
            image, landmark = features.image[keep], self._landmark[part][keep]
            cluster = self._unique_clusters(image, features.descriptors[keep], assign)
            flipped = cluster  # an object that faces the other way
            if not self._one_way:
                flipped = self._unique_clusters(image, features.descriptors_flipped[keep], assign)
            labels.write_table(part, _labels_table(features, keep, landmark, cluster, flipped))
            total += _labelled(features, image, cluster, np.bincount(landmark, minlength=landmarks))
        return total

    def spread(self, centroids: NDArray[np.float32]) -> Spread:
        """Sum the distances of each cluster's keypoints to its centroid (chapter 5)."""
        zeros = np.zeros(len(centroids), np.int64)
        total, assign = Spread(zeros, zeros, zeros), Assigner(centroids, self._search)
        for part, features in self._read():
            points = features.descriptors[self._landmark[part] != NONE]
            cluster = assign(points)
            total += hungarian.spread(cluster, squared_distance(points, centroids, cluster), len(centroids))
        return total

    def label_matches(self, centroids: NDArray[np.float32], cutoff: NDArray[np.float64], labels: Folder) -> Labelled:
        """Match each image's keypoints with the M clusters, drop those beyond the cut-off and write the parts of labels.

        In chapter 5 a cluster is both a landmark and what is trained on, and nothing is mirrored.

        Args:
            centroids: (M, d).
            cutoff: (M,), the largest distance of each cluster's members.
            labels: Folder of the labels.
        """
        total = Labelled(0, 0, np.zeros(len(centroids), np.int64))
        for part, features in self._read():
            usable = self._landmark[part] != NONE
            counts = np.bincount(features.image[usable], minlength=len(features.counts))
            matched = np.full(len(usable), NONE, np.int16)
            matched[usable] = hungarian.match(counts, features.descriptors[usable], centroids, cutoff)
            keep = matched != NONE
            cluster, image = matched[keep], features.image[keep]
            labels.write_table(part, _labels_table(features, keep, cluster, cluster, np.full_like(cluster, NONE)))
            total += _labelled(features, image, cluster, np.bincount(cluster, minlength=len(centroids)))
        return total

    # -- reading

    def _read(self) -> Iterator[tuple[str, Features]]:
        """Yield all parts in order, one in memory at a time."""
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

    def _fit_points(self) -> Iterator[tuple[str, NDArray[np.float16]]]:
        """Yield the descriptors of the fit, part by part, from memory or read again."""
        for part in self._parts:
            yield part, self._cached[part] if part in self._cached else self._read_fit_points(part)

    def _read_fit_points(self, part: str) -> NDArray[np.float16]:
        """Read the part's share of the fit: kept keypoints' descriptors, and the mirrored ones if they are fitted."""
        features = read_features(self._folder, part)
        keep = self._landmark[part] != NONE
        points = features.descriptors[keep]
        if self._mirrored:
            points = np.concatenate([points, features.descriptors_flipped[keep]])
        return _draw_share(points, self._share, self._rng(part, _FIT))

    def _rng(self, part: str, purpose: int) -> np.random.Generator:
        """Return the generator of a part's draws, which depends on the seed, the part and the purpose alone."""
        return np.random.default_rng([self._seed, int(part.removeprefix("part-").split(".")[0]), purpose])

    def _usable(self, part: str, features: Features) -> NDArray[np.bool_]:
        """Return the keypoints that have descriptors and are not excluded: (N,)."""
        usable = _with_descriptors(features)
        return usable & ~self._excluded[part] if part in self._excluded else usable

    # -- assigning

    def _assigned(
        self, descriptors: NDArray[np.float16], usable: NDArray[np.bool_], assign: Assigner
    ) -> NDArray[np.int32]:
        """Return the nearest cluster of the usable keypoints, NONE for the others: (N,)."""
        cluster = np.full(len(descriptors), NONE, np.int32)
        cluster[usable] = assign(descriptors[usable])
        return cluster

    def _unique_clusters(
        self, image: NDArray[np.int64], descriptors: NDArray[np.float16], assign: Assigner
    ) -> NDArray[np.int16]:
        """Return the nearest cluster, NONE where another keypoint of the image is nearer to its centroid: (N,)."""
        cluster = assign(descriptors)
        keep = duplicates.keep_nearest(image, cluster, squared_distance(descriptors, assign.centroids, cluster))
        return np.where(keep, cluster, NONE).astype(np.int16)


def _blocks(points: NDArray[np.float16], rows: int = BLOCK) -> Iterator[NDArray[np.float16]]:
    for start in range(0, len(points), rows):
        yield points[start : start + rows]


def _draw_share(points: NDArray[np.float16], share: float, rng: np.random.Generator) -> NDArray[np.float16]:
    """Return a random share of the points; all of them, without a draw, for a share of 1."""
    return points if share >= 1 else points[rng.random(len(points)) < share]


def _with_descriptors(features: Features) -> NDArray[np.bool_]:
    """Return the keypoints whose descriptors, plain and mirrored, are finite and not zero: (N,)."""
    both = (features.descriptors, features.descriptors_flipped)
    # The sum of magnitudes is NaN or infinite if an entry is.
    size = [np.abs(as_float32(descriptors)).sum(axis=1) for descriptors in both]
    usable: NDArray[np.bool_] = np.isfinite(size[0]) & np.isfinite(size[1]) & (size[0] > 0) & (size[1] > 0)
    return usable


def _labelled(
    features: Features, image: NDArray[np.int64], cluster: NDArray[np.int16], landmark_counts: NDArray[np.int64]
) -> Labelled:
    """Count a part's labels: image and cluster of its kept keypoints (N,), landmark_counts (K,)."""
    trained = np.bincount(image[cluster != NONE], minlength=len(features.counts))
    return Labelled(int(trained.sum()), int((trained >= 2).sum()), landmark_counts)


def _labels_table(
    features: Features,
    keep: NDArray[np.bool_],
    landmark: NDArray[np.int16],
    cluster: NDArray[np.int16],
    flipped: NDArray[np.int16],
) -> pa.Table:
    """Return the labels (schemas.LABELS) of a part: its kept keypoints with their landmark and clusters."""
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
