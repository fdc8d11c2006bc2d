"""A round's labels as padded arrays, ready to be warped into any view."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.warp import displace
from ray_kplm.methods.batch import Points, Views
from ray_kplm.methods.channels import Channels
from ray_kplm.schemas import NONE


@dataclass(frozen=True)
class Labels:
    """Points of N images with identities, padded to P a row.

    xy: float32 (N, P, 2), crop frame, 0 where there is no point. identity: int32 (N, P) of the image as it is;
    identity_flipped: of its mirror image; NONE: no counterpart. present: bool (N, P). landmark, landmark_flipped: likewise,
    where points have a landmark of K beside their identity.
    """

    xy: NDArray[np.float32]
    identity: NDArray[np.int32]
    identity_flipped: NDArray[np.int32]
    present: NDArray[np.bool_]
    landmark: NDArray[np.int32] | None = None
    landmark_flipped: NDArray[np.int32] | None = None

    def usable(self, minimum: int = 2) -> NDArray[np.int64]:
        """Rows of images with at least `minimum` points."""
        return np.flatnonzero(self.present.sum(1) >= minimum)

    def in_views(self, views: Views, device: torch.device) -> Points:
        """The points of B views, on `device`. A point that left the picture is not valid and has no identity."""
        image, size, affine = views.image, views.picture.shape[1], views.crop_to_view
        placed = np.einsum("bij,bpj->bpi", affine[:, :, :2], self.xy[image]) + affine[:, None, :, 2]
        cells = coordinates.input_to_heatmap(displace(placed, views.shifts, size)).astype(np.float32)
        nearest = np.rint(cells)
        valid = self.present[image] & ((nearest >= 0) & (nearest < size // coordinates.STRIDE)).all(-1)

        def named(plain: NDArray[np.int32], flipped: NDArray[np.int32]) -> Tensor:
            names = np.where(views.flip[:, None], flipped[image], plain[image])
            return sent(np.where(valid, names, NONE).astype(np.int64))

        def sent(array: NDArray) -> Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        identity = named(self.identity, self.identity_flipped)
        if self.landmark is None or self.landmark_flipped is None:
            return Points(sent(cells), sent(valid), identity)
        return Points(sent(cells), sent(valid), identity, named(self.landmark, self.landmark_flipped))


def keypoint_labels(tables: Iterable[pa.Table]) -> Labels:
    """Warm-up: a keypoint corresponds to itself (thesis 6.1.5). Tables of schemas.KEYPOINTS, in the images' order."""
    points = [_points(table) for table in tables]
    counts, xy = _joined(points)
    index = np.concatenate([np.arange(n) for n in counts]) if len(counts) else np.zeros(0, np.int64)
    return _padded(counts, xy, index, index)


def cluster_labels(tables: Iterable[pa.Table], flip_map: NDArray | None = None) -> Labels:
    """Rounds: points correspond when they share a training cluster. Tables of schemas.LABELS.

    Points that the second duplicate filter dropped (cluster NONE) are left out; with the landmarks' flip map (K,) they stay,
    for their landmark.
    """
    tables = list(tables)
    counts, xy = _joined([_points(table) for table in tables])
    cluster, flipped = (_flat(tables, name) for name in ("cluster", "cluster_flipped"))
    image = np.repeat(np.arange(len(counts)), counts)
    if flip_map is not None:
        landmark = _flat(tables, "landmark")
        return _padded(counts, xy, cluster, flipped, landmark, np.asarray(flip_map)[landmark])
    keep = cluster != NONE
    return _padded(np.bincount(image[keep], minlength=len(counts)), xy[keep], cluster[keep], flipped[keep])


def landmark_labels(tables: Iterable[pa.Table], channels: Channels) -> Labels:
    """Stage 2: column c holds the point of channel c. In the mirror a point becomes its channel's partner.

    The identity tells, for a view, which channel the point trains; see `methods.stage2`. Of an image's points of one channel,
    which merged landmarks can be, the one with the highest score counts.
    """
    tables = list(tables)
    counts, xy = _joined([_points(table) for table in tables])
    landmark, score = _flat(tables, "landmark"), _flat(tables, "score")
    image = np.repeat(np.arange(len(counts)), counts)
    channel = channels.landmark_to_channel[landmark]
    order = np.argsort(score, kind="stable")  # of several the last one written stays
    order = order[channel[order] != NONE]
    shape = (len(counts), len(channels))
    out_xy, present = np.zeros((*shape, 2), np.float32), np.zeros(shape, bool)
    out_xy[image[order], channel[order]] = xy[order]
    present[image[order], channel[order]] = True
    identity = np.where(present, np.arange(len(channels)), NONE).astype(np.int32)
    flipped = np.where(present, channels.flip_map, NONE).astype(np.int32)
    return Labels(out_xy, identity, flipped, present)


def _points(table: pa.Table) -> tuple[NDArray, NDArray]:
    """Number of points of each row, and all points (N, 2)."""
    column = table["xy"].combine_chunks()
    counts = column.value_lengths().to_numpy(zero_copy_only=False)
    flat = column.flatten().flatten().to_numpy(zero_copy_only=False)
    return counts.astype(np.int64), flat.reshape(-1, 2)


def _joined(points: list[tuple[NDArray, NDArray]]) -> tuple[NDArray, NDArray]:
    if not points:
        return np.zeros(0, np.int64), np.zeros((0, 2), np.float32)
    return np.concatenate([c for c, _ in points]), np.concatenate([p for _, p in points])


def _flat(tables: list[pa.Table], name: str) -> NDArray:
    columns = [t[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for t in tables]
    return np.concatenate(columns) if columns else np.zeros(0, np.int64)


def _padded(counts: NDArray, xy: NDArray, *names: NDArray) -> Labels:
    """names: identity and identity_flipped, and landmark and landmark_flipped where they are known."""
    images, most = len(counts), int(counts.max(initial=1))
    image = np.repeat(np.arange(images), counts)
    column = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
    out_xy = np.zeros((images, most, 2), np.float32)
    out = np.full((len(names), images, most), NONE, np.int32)
    present = np.zeros((images, most), bool)
    out_xy[image, column] = xy
    for row, values in zip(out, names, strict=True):
        row[image, column] = values
    present[image, column] = True
    return Labels(out_xy, out[0], out[1], present, *out[2:])
