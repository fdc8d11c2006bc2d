"""The pseudo-label update, the part that reads the descriptors (docs/method.md 3, steps 2 and 3; docs/method.md 5).

A shard owns some parts of a round's features. Its methods return sums, counts and samples, and write the labels of its images.
Its state (which keypoints are kept, and their landmarks) is a function of the centroids that it got, so a shard that was lost
can be built again and brought to the same state by the same calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.config import ClusteringConfig
from ray_kplm.correspondence import duplicates, flip, hungarian, kmeans, static
from ray_kplm.correspondence.assignment import squared_distance
from ray_kplm.correspondence.backend import Assign, Backend, CpuBackend
from ray_kplm.correspondence.feature_cache import FeatureCache
from ray_kplm.correspondence.features import Features, ragged, ragged_points
from ray_kplm.correspondence.hungarian import Spread
from ray_kplm.correspondence.in_memory import Rows
from ray_kplm.correspondence.shard_results import Contents, Filtered, Labelled, Trial
from ray_kplm.correspondence.starts import draw
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

_FIT, _START = 1, 2
"""Purposes of a seeded draw: the share of the descriptors to fit, the sample for the starts."""


class DescriptorShard:
    """The owner of some parts of features."""

    def __init__(
        self,
        features: Folder,
        parts: list[str],
        *,
        memory_bytes: int,
        seed: int,
        backend: Backend | None = None,
        one_way: bool = False,
    ) -> None:
        """Take over parts of features; nothing is read yet.

        Args:
            features: Folder of the round's features.
            parts: Names of this shard's parts.
            memory_bytes: Memory budget.
            seed: Seed of the samples.
            backend: Where K-means is computed; default: on one thread of the CPU.
            one_way: Whether the features are of images as they face one way. A keypoint's cluster is then the same in the
                mirror image.
        """
        self._features, self._parts = FeatureCache(features, parts, memory_bytes), parts
        self._seed, self._backend = seed, backend or CpuBackend()
        self._one_way = one_way
        self._share, self._mirrored = 1.0, True
        self._landmark: dict[str, NDArray[np.int16]] = {}  # of every keypoint; NONE: dropped
        self._excluded: dict[str, NDArray[np.bool_]] = {}  # keypoints that are left out of all later fits
        self._squares: dict[str, list[NDArray[np.int32]]] = {}  # squared lengths, plain and mirrored; -1: unusable
        self._held: dict[str, list[Rows]] = {}
        self._points: kmeans.Points | None = None

    def begin(self) -> Contents:
        """Read all parts once and drop the keypoints without a usable descriptor."""
        total = Contents(0, 0, 0)
        self._landmark, self._excluded, self._squares = {}, {}, {}
        self._forget_fit()
        for part, features in self._features.begin():
            self._squares[part] = [
                kmeans.squares(side) for side in (features.descriptors, features.descriptors_flipped)
            ]
            usable = self._usable(part)
            self._landmark[part] = np.where(usable, 0, NONE).astype(np.int16)
            total += Contents(len(features.counts), len(usable), int((~usable).sum()))
        return total

    def begin_fit(self, share: float, mirrored: bool = True) -> kmeans.PointTotals:
        """Choose the descriptors that `sample` and `partial` use from now on. Nothing is read to count them.

        Args:
            share: Share of the kept keypoints' descriptors, drawn by seed.
            mirrored: Whether the descriptors of the mirror images are included.
        """
        self._share, self._mirrored = share, mirrored
        self._forget_fit()
        total = kmeans.PointTotals(0, 0)
        for part in self._parts:
            for rows, squares in zip(self._fit_rows(part), self._squares[part], strict=False):
                total += kmeans.PointTotals(len(rows), int(squares[rows].sum(dtype=np.int64)))
        return total

    def sample(self, share: float) -> list[tuple[str, NDArray[np.float16]]]:
        """Draw a seeded share of each part's descriptors, so that the union does not depend on the number of shards."""
        self._hold()
        sampled = []
        for part in self._parts:
            sources = self._held[part] if part in self._held else self._features.rows(part, self._choose)
            every = [np.arange(len(source.rows), dtype=np.int32) for source in sources]
            chosen = _draw_share(every, share, self._rng(part, _START))
            pieces = [source.take(rows) for source, rows in zip(sources, chosen, strict=True)]
            sampled.append((part, np.concatenate(pieces)))
        return sampled

    def try_starts(
        self,
        sample: NDArray[np.float16],
        k: int,
        seed: tuple[int, ...],
        turns: dict[str, list[int]],
        options: ClusteringConfig,
    ) -> list[Trial]:
        """Fit K-means to a sample for a few iterations, from this shard's share of `clustering.n_init` starts.

        Args:
            sample: (N, d), the same on all shards.
            k: Number of clusters.
            seed: Seed of the starts.
            turns: First part of a shard -> numbers of the starts that it tries.
            options: The run's options of clustering.
        """
        numbers = turns.get(self._parts[0], []) if self._parts else []
        if not numbers:
            return []
        rng = np.random.default_rng(seed)
        draws = [draw(len(sample), k, rng) for _ in range(options.n_init)]
        found = self._backend.try_starts(Rows.all_of(sample), [draws[number] for number in numbers], options)
        return [Trial(one.objectives[-1], number, one.centroids) for number, one in zip(numbers, found, strict=True)]

    def partial(self, centroids: NDArray[np.float32]) -> kmeans.Partial:
        """Return this shard's contribution to a K-means iteration with these centroids."""
        total = self._hold().partial(centroids)
        streamed = (part for part in self._parts if part not in self._held)
        read_again = (rows for part in streamed for rows in self._features.rows(part, self._choose))
        return total + self._backend.partial(read_again, centroids)

    def filter_landmarks(self, centroids: NDArray[np.float32]) -> Filtered:
        """Assign all keypoints to the K centroids and keep the nearest keypoint of each landmark in each image."""
        k, assign = len(centroids), self._backend.assigner(centroids)
        total = Filtered(0, 0, 0, np.zeros((k, k), np.int64), static.positions(np.zeros(0, int), np.zeros((0, 2)), k))
        for part, features in self._features.read():
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
        excluded, assign = 0, self._backend.assigner(centroids)
        for part, features in self._features.read():
            usable = self._usable(part)
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
        total, assign = Labelled(0, 0, np.zeros(landmarks, np.int64)), self._backend.assigner(centroids)
        for part, features in self._features.read():
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
        total, assign = Spread(zeros, zeros, zeros), self._backend.assigner(centroids)
        for part, features in self._features.read():
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
        for part, features in self._features.read():
            usable = self._landmark[part] != NONE
            counts = np.bincount(features.image[usable], minlength=len(features.counts))
            matched = np.full(len(usable), NONE, np.int16)
            matched[usable] = hungarian.match(counts, features.descriptors[usable], centroids, cutoff)
            keep = matched != NONE
            cluster, image = matched[keep], features.image[keep]
            labels.write_table(part, _labels_table(features, keep, cluster, cluster, np.full_like(cluster, NONE)))
            total += _labelled(features, image, cluster, np.bincount(cluster, minlength=len(centroids)))
        return total

    # -- the fit's descriptors

    def _forget_fit(self) -> None:
        self._held, self._points = {}, None

    def _hold(self) -> kmeans.Points:
        """Return the descriptors of the fit that stay in memory; they are chosen when they are first asked for."""
        if self._points is None:
            counts = {part: sum(len(rows) for rows in self._fit_rows(part)) for part in self._parts}
            self._held = self._features.hold(counts, self._choose)
            self._points = self._backend.hold([rows for sources in self._held.values() for rows in sources])
        return self._points

    def _choose(self, part: str, descriptors: Sequence[NDArray[np.float16]]) -> list[Rows]:
        """Return those of a part's descriptors, plain and mirrored, that are fitted."""
        chosen = zip(descriptors, self._fit_rows(part), self._squares[part], strict=False)
        return [Rows(side, rows, squares[rows]) for side, rows, squares in chosen]

    def _fit_rows(self, part: str) -> list[NDArray[np.int32]]:
        """Return the part's share of the fit: rows of kept keypoints, and rows of mirrored ones if they are fitted."""
        kept = np.flatnonzero(self._landmark[part] != NONE).astype(np.int32)
        return _draw_share([kept, kept] if self._mirrored else [kept], self._share, self._rng(part, _FIT))

    def _rng(self, part: str, purpose: int) -> np.random.Generator:
        """Return the generator of a part's draws, which depends on the seed, the part and the purpose alone."""
        return np.random.default_rng([self._seed, int(part.removeprefix("part-").split(".")[0]), purpose])

    def _usable(self, part: str) -> NDArray[np.bool_]:
        """Return the keypoints whose descriptors, plain and mirrored, are finite and not zero, and not excluded: (N,)."""
        plain, mirrored = self._squares[part]
        usable: NDArray[np.bool_] = (plain >= 0) & (mirrored >= 0)
        return usable & ~self._excluded[part] if part in self._excluded else usable

    # -- assigning

    def _assigned(
        self, descriptors: NDArray[np.float16], usable: NDArray[np.bool_], assign: Assign
    ) -> NDArray[np.int32]:
        """Return the nearest cluster of the usable keypoints, NONE for the others: (N,)."""
        cluster = np.full(len(descriptors), NONE, np.int32)
        cluster[usable] = assign(descriptors[usable])
        return cluster

    def _unique_clusters(
        self, image: NDArray[np.int64], descriptors: NDArray[np.float16], assign: Assign
    ) -> NDArray[np.int16]:
        """Return the nearest cluster, NONE where another keypoint of the image is nearer to its centroid: (N,)."""
        cluster = assign(descriptors)
        keep = duplicates.keep_nearest(image, cluster, squared_distance(descriptors, assign.centroids, cluster))
        return np.where(keep, cluster, NONE).astype(np.int16)


def _draw_share(rows: list[NDArray[np.int32]], share: float, rng: np.random.Generator) -> list[NDArray[np.int32]]:
    """Return a random share of the rows; all of them, without a draw, for a share of 1."""
    return rows if share >= 1 else [some[rng.random(len(some)) < share] for some in rows]


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
