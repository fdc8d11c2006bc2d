"""The labels of a round's images as padded arrays, which are mapped into any view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.warp import displace
from ray_kplm.methods.batch import Points, Views
from ray_kplm.methods.channels import Channels
from ray_kplm.network.transfer import to_device
from ray_kplm.schemas import NONE


@dataclass(frozen=True)
class Labels:
    """Points of N images with identities, padded to P per image.

    Attributes:
        xy: float32 (N, P, 2), crop frame, 0 for padding.
        identity: int32 (N, P). Points of equal identity correspond; NONE corresponds to nothing.
        identity_flipped: int32 (N, P), the identity in the mirror image.
        present: bool (N, P), False for padding.
        landmark: int32 (N, P), the landmark of K, if points have one beside their identity.
        landmark_flipped: int32 (N, P), the landmark in the mirror image.
    """

    xy: NDArray[np.float32]
    identity: NDArray[np.int32]
    identity_flipped: NDArray[np.int32]
    present: NDArray[np.bool_]
    landmark: NDArray[np.int32] | None = None
    landmark_flipped: NDArray[np.int32] | None = None

    def usable(self, minimum: int = 2) -> NDArray[np.int64]:
        """Return the rows of images with at least `minimum` points."""
        return np.flatnonzero(self.present.sum(1) >= minimum)

    def rows(self, images: NDArray[np.int64]) -> Labels:
        """Return the labels of some images."""
        return Labels(**{name: array[images] for name, array in self.arrays().items()})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by the names of the attributes, without those that are not there."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @classmethod
    def joined(cls, labels: Sequence[Labels]) -> Labels:
        """Return the labels of the images of several labels that are padded to the same P."""
        parts = [each.arrays() for each in labels]
        return cls(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def in_views(self, views: Views, device: torch.device) -> Points:
        """Return the points of B views on `device`. Points outside the view are not valid and have no identity."""
        image, size, affine = views.image, views.picture.shape[1], views.crop_to_view
        placed = np.einsum("bij,bpj->bpi", affine[:, :, :2], self.xy[image]) + affine[:, None, :, 2]
        cells = coordinates.input_to_heatmap(displace(placed, views.shifts, size)).astype(np.float32)
        nearest = np.rint(cells)
        valid = self.present[image] & ((nearest >= 0) & (nearest < size // coordinates.STRIDE)).all(-1)

        def in_view(plain: NDArray[np.int32], flipped: NDArray[np.int32]) -> Tensor:
            values = np.where(views.flip[:, None], flipped[image], plain[image])
            return to_device(np.where(valid, values, NONE).astype(np.int64), device)

        identity = in_view(self.identity, self.identity_flipped)
        if self.landmark is None or self.landmark_flipped is None:
            return Points(to_device(cells, device), to_device(valid, device), identity)
        return Points(
            to_device(cells, device), to_device(valid, device), identity, in_view(self.landmark, self.landmark_flipped)
        )


@dataclass(frozen=True)
class CarriedLabels:
    """Stands for labels that come with the views: of a training whose images are never all at hand."""

    def in_views(self, views: Views, device: torch.device) -> Points:
        """Return the points of B views on `device`: see `Labels.in_views`."""
        assert views.labels is not None
        return views.labels.in_views(views, device)


def keypoint_labels(tables: Iterable[pa.Table]) -> Labels:
    """Return labels for the warm-up: a keypoint's identity is its index in the image (thesis 6.1.5).

    Args:
        tables: of schemas.KEYPOINTS, in the order of the round's images.
    """
    points = [_points(table) for table in tables]
    counts, xy = _concatenated(points)
    index = np.concatenate([np.arange(n) for n in counts]) if len(counts) else np.zeros(0, np.int64)
    return _padded(counts, xy, index, index)


def cluster_labels(tables: Iterable[pa.Table], flip_map: NDArray[np.int16] | None = None) -> Labels:
    """Return labels for a round of stage 1: a point's identity is its training cluster.

    Points that the second duplicate filter dropped (cluster NONE) are left out, unless landmarks are labelled too.

    Args:
        tables: of schemas.LABELS, in the order of the round's images.
        flip_map: (K,) mirror partners of the landmarks. If given, points are labelled with their landmark too.
    """
    tables = list(tables)
    counts, xy = _concatenated([_points(table) for table in tables])
    cluster, flipped = (_flattened(tables, name) for name in ("cluster", "cluster_flipped"))
    image = np.repeat(np.arange(len(counts)), counts)
    if flip_map is not None:
        landmark = _flattened(tables, "landmark")
        return _padded(counts, xy, cluster, flipped, landmark, np.asarray(flip_map)[landmark])
    keep = cluster != NONE
    return _padded(np.bincount(image[keep], minlength=len(counts)), xy[keep], cluster[keep], flipped[keep])


def landmark_labels(tables: Iterable[pa.Table], channels: Channels) -> Labels:
    """Return labels for stage 2: a point's identity is the channel that it trains, see `methods.landmark_objective`.

    Column c holds the point of channel c. In the mirror image its identity is the channel's partner. If an image has several
    points of one channel, as after a merge, the one with the highest score is kept.

    Args:
        tables: of schemas.LABELS, in the order of the round's images.
        channels: of the landmark detector.
    """
    tables = list(tables)
    counts, xy = _concatenated([_points(table) for table in tables])
    landmark, score = _flattened(tables, "landmark"), _flattened(tables, "score")
    image = np.repeat(np.arange(len(counts)), counts)
    channel = channels.landmark_to_channel[landmark]
    order = np.argsort(score, kind="stable")  # the last of several assignments is kept
    order = order[channel[order] != NONE]
    shape = (len(counts), len(channels))
    out_xy, present = np.zeros((*shape, 2), np.float32), np.zeros(shape, bool)
    out_xy[image[order], channel[order]] = xy[order]
    present[image[order], channel[order]] = True
    identity = np.where(present, np.arange(len(channels)), NONE).astype(np.int32)
    flipped = np.where(present, channels.flip_map, NONE).astype(np.int32)
    return Labels(out_xy, identity, flipped, present)


def _points(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the number of points of each row, and all points (n, 2)."""
    column = table["xy"].combine_chunks()
    counts = column.value_lengths().to_numpy(zero_copy_only=False)
    flat = column.flatten().flatten().to_numpy(zero_copy_only=False)
    return counts.astype(np.int64), flat.reshape(-1, 2)


def _concatenated(
    points: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the results of `_points` for several tables as that of one table."""
    if not points:
        return np.zeros(0, np.int64), np.zeros((0, 2), np.float32)
    return np.concatenate([c for c, _ in points]), np.concatenate([p for _, p in points])


def _flattened(tables: list[pa.Table], name: str) -> NDArray[Any]:
    """Return the values of a column of lists in all tables: (n,)."""
    columns = [t[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for t in tables]
    return np.concatenate(columns) if columns else np.zeros(0, np.int64)


def _padded(counts: NDArray[np.int64], xy: NDArray[np.float32], *columns: NDArray[Any]) -> Labels:
    """Return the labels of ragged points.

    Args:
        counts: (N,) number of points of each image.
        xy: (n, 2) all points.
        columns: (n,) each: identity and identity_flipped, and optionally landmark and landmark_flipped.
    """
    images, most = len(counts), int(counts.max(initial=1))
    row = np.repeat(np.arange(images), counts)
    position = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded_xy = np.zeros((images, most, 2), np.float32)
    padded = np.full((len(columns), images, most), NONE, np.int32)
    present = np.zeros((images, most), bool)
    padded_xy[row, position] = xy
    for target, values in zip(padded, columns, strict=True):
        target[row, position] = values
    present[row, position] = True
    return Labels(padded_xy, padded[0], padded[1], present, *padded[2:])
