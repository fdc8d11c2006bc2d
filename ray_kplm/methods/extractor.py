"""Extract keypoints with a frozen network of stage 1, and descriptors if it has them (docs/method.md 3 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from ray_kplm.config import DetectionConfig
from ray_kplm.imaging import coordinates
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement


@dataclass(frozen=True)
class Detected:
    """The N keypoints of one image, in descending order of score.

    Attributes:
        xy: float32 (N, 2).
        score: float32 (N,), height of the detector's heatmap.
        descriptors: float16 (N, d), of unit norm.
        descriptors_flipped: float16 (N, d), those of the same points in the mirror image.
    """

    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    descriptors: NDArray[np.float16]
    descriptors_flipped: NDArray[np.float16]

    def inside(self, box: NDArray[np.float32]) -> Detected:
        """Return the keypoints in a box (4,) of the same frame or on its border; all of them if it is NaN."""
        keep = _inside(self.xy, box)
        return Detected(self.xy[keep], self.score[keep], self.descriptors[keep], self.descriptors_flipped[keep])

    def in_crop(self, input_to_crop: coordinates.Affine) -> Detected:
        """Return the keypoints in the crop frame. input_to_crop: affine map (2, 3) from the network's input."""
        return replace(self, xy=coordinates.apply(input_to_crop, self.xy).astype(np.float32))


class Pending:
    """The keypoints of B images, which a device may still be computing.

    They come to the host in one copy, which on CUDA goes on beside the work on the next images.
    """

    def __init__(
        self, peaks: heatmaps.Peaks, descriptors_BNd: torch.Tensor, descriptors_flipped_BNd: torch.Tensor
    ) -> None:
        """Begin the copy of peaks and of their float16 descriptors."""
        parts = (peaks.xy_BN2.float(), peaks.score_BN, descriptors_BNd, descriptors_flipped_BNd, peaks.valid_BN)
        self._shapes = [part.shape for part in parts]
        packed = torch.cat([part.contiguous().flatten().view(torch.uint8) for part in parts])  # by falling alignment
        self._copied: torch.cuda.Event | None = None
        if packed.device.type == "cuda":
            self._host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            self._host.copy_(packed, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        else:
            self._host = packed.cpu()

    def keypoints(self) -> list[Detected]:
        """Return the keypoints of each image, in the input frame, as soon as they are here."""
        if self._copied is not None:
            self._copied.synchronize()
        content, parts = self._host.numpy(), list[NDArray[Any]]()
        for shape, kind in zip(self._shapes, _PACKED, strict=True):
            size = shape.numel() * np.dtype(kind).itemsize
            parts.append(content[:size].view(kind).reshape(shape))
            content = content[size:]
        cells, score, plain, flipped, valid = parts
        xy = coordinates.heatmap_to_input(cells).astype(np.float32)
        return [Detected(xy[b][v], score[b][v], plain[b][v], flipped[b][v]) for b, v in enumerate(valid)]


_PACKED = (np.float32, np.float32, np.float16, np.float16, np.bool_)
"""Number formats of what `Pending` packs."""


class KeypointExtractor(Protocol):
    """Extracts keypoints from images, uint8 (B, S, S, 3), with a frozen network."""

    def scores(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the heights of all local maxima in the images' heatmaps: (n,), in no particular order.

        boxes: (B, 4), input frame. If given, maxima outside of them are left out; NaN leaves out none.
        """
        ...

    def begin(
        self, images: NDArray[np.uint8], threshold: float, known: list[NDArray[np.float32]] | None = None
    ) -> Pending:
        """Give the device the work on images; their keypoints follow.

        Args:
            images: uint8 (B, S, S, 3).
            threshold: least height of a keypoint in the heatmap.
            known: for each image, points (n, 2) that are added where no keypoint is near.
        """
        ...


class DescriptorExtractor:
    """Extracts keypoints with descriptors, of the image and of its mirror image (thesis 6.1.8)."""

    def __init__(self, network: nn.Module, placement: Placement, options: DetectionConfig) -> None:
        self._network, self._placement, self._options = network, placement, options

    def scores(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the heights of all local maxima: see `KeypointExtractor`."""
        return peak_scores(self._network, self._placement, images, self._options.nms_radius, self._options.limit, boxes)

    def begin(
        self, images: NDArray[np.uint8], threshold: float, known: list[NDArray[np.float32]] | None = None
    ) -> Pending:
        """Give the device the work on images: see `KeypointExtractor`."""
        radius, limit = self._options.nms_radius, self._options.limit
        return begin_keypoints(self._network, self._placement, images, threshold, radius, limit, known)


DISTILLING_VIEWS = ((0.0, 1.0, False), (0.0, 1.0, True), (15.0, 1.0, False), (-15.0, 1.0, False), (0.0, 0.85, False),
                    (0.0, 1.15, False))  # fmt: skip
"""(rotation in degrees, zoom, whether mirrored) of the views whose heatmaps are averaged: data distillation (thesis 4.2.3)."""


class PointExtractor:
    """Extracts keypoints without descriptors, from the mean heatmap of one or several views."""

    def __init__(
        self,
        network: nn.Module,
        placement: Placement,
        options: DetectionConfig,
        views: tuple[tuple[float, float, bool], ...] = DISTILLING_VIEWS[:1],
    ) -> None:
        self._network, self._placement, self._options, self._views = network, placement, options, views

    @torch.inference_mode()
    def heat(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Return the mean heatmap of the views, each mapped back to the image: (B, h, w)."""
        batch = self._placement.images(images)
        total = torch.zeros(())
        for degrees, zoom, mirrored in self._views:
            to_view, from_view = _view_transforms(degrees, zoom, mirrored)
            with self._placement.precision():
                heat = self._network(_resample(batch, to_view)).float().sigmoid()
            total = total.to(heat) + _resample(heat[:, None], from_view)[:, 0]
        return total / len(self._views)

    def scores(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the heights of all local maxima: see `KeypointExtractor`."""
        return _heights(heatmaps.peaks(self.heat(images), 0.0, self._options.nms_radius, self._options.limit), boxes)

    @torch.inference_mode()
    def begin(
        self, images: NDArray[np.uint8], threshold: float, known: list[NDArray[np.float32]] | None = None
    ) -> Pending:
        """Give the device the work on images, for descriptors of width 0: see `KeypointExtractor`."""
        heat = self.heat(images)
        peaks = heatmaps.peaks(heat, threshold, self._options.nms_radius, self._options.limit)
        if known is not None:
            peaks = _append_known(peaks, heat, known, self._options.nms_radius)
        none = heat.new_zeros((*peaks.score_BN.shape, 0), dtype=torch.float16)
        return Pending(peaks, none, none)


def _view_transforms(degrees: float, zoom: float, mirrored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the affine map from a view to the image that it is sampled from, and its inverse.

    Both are (2, 3), in the coordinates of `torch.nn.functional.affine_grid`: -1 to 1 over the picture.
    """
    angle = np.radians(degrees)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    linear = linear @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    both = (np.concatenate([m, np.zeros((2, 1))], axis=1) for m in (linear, np.linalg.inv(linear)))
    to_view, from_view = (torch.from_numpy(m.astype(np.float32)) for m in both)
    return to_view, from_view


def _resample(maps_BChw: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Return the maps sampled at the affine map `source`, (2, 3), of their pixels."""
    if torch.equal(source, torch.eye(2, 3)):
        return maps_BChw
    grid = F.affine_grid(source.expand(len(maps_BChw), 2, 3), list(maps_BChw.shape), align_corners=False)
    return F.grid_sample(maps_BChw, grid.to(maps_BChw), padding_mode="border", align_corners=False)


@torch.inference_mode()
def peak_scores(
    network: nn.Module,
    placement: Placement,
    images: NDArray[np.uint8],
    radius: int,
    limit: int,
    boxes: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the heights of all local maxima of the detector's heatmaps.

    Args:
        network: a `KeypointNetwork`.
        placement: its device and number format.
        images: uint8 (B, S, S, 3).
        radius: of the neighbourhood of a maximum, cells.
        limit: most maxima of an image.
        boxes: (B, 4), input frame; see `KeypointExtractor.scores`.

    Returns:
        float32 (n,), in no particular order.
    """
    with placement.precision():
        logits_Bhw, _ = network(placement.images(images))
    return _heights(heatmaps.peaks(logits_Bhw.float().sigmoid(), 0.0, radius, limit), boxes)


def _heights(peaks: heatmaps.Peaks, boxes: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the heights of peaks, of those in the boxes (B, 4) if these are given: (n,)."""
    counted = peaks.valid_BN.cpu().numpy()
    if boxes is not None:
        xy = coordinates.heatmap_to_input(peaks.xy_BN2.cpu().numpy())
        counted &= np.stack([_inside(points, box) for points, box in zip(xy, boxes, strict=True)])
    heights: NDArray[np.float32] = peaks.score_BN.cpu().numpy()[counted]
    return heights


def _inside(xy: NDArray[Any], box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which points (N, 2) lie in a box x0, y0, x1, y1 or on its border: (N,); all of them if the box is NaN."""
    if np.isnan(box).any():
        return np.ones(len(xy), bool)
    return np.asarray(((xy >= box[:2]) & (xy <= box[2:])).all(axis=-1))


def calibrated_threshold(scores: NDArray[np.float32], images: int, points_per_image: float) -> float:
    """Return the threshold above which a sample of images has a given number of points on average.

    Args:
        scores: heights of all local maxima in the sample. If they are fewer, the threshold is 0 and all are kept.
        images: number of images in the sample.
        points_per_image: points that an image should have on average.
    """
    wanted = round(images * points_per_image)
    if wanted >= len(scores):
        return 0.0
    return float(np.partition(scores, -wanted - 1)[-wanted - 1])


def detect_keypoints(
    network: nn.Module, placement: Placement, images: NDArray[np.uint8], threshold: float, radius: int, limit: int
) -> list[Detected]:
    """Return the keypoints of each image with their descriptors, in the input frame: see `begin_keypoints`."""
    return begin_keypoints(network, placement, images, threshold, radius, limit).keypoints()


@torch.inference_mode()
def begin_keypoints(
    network: nn.Module,
    placement: Placement,
    images: NDArray[np.uint8],
    threshold: float,
    radius: int,
    limit: int,
    known: list[NDArray[np.float32]] | None = None,
) -> Pending:
    """Give the device the work on images: their keypoints with descriptors. Nothing waits for the device.

    The flipped descriptor is sampled from the network's output for the mirror image, at the mirrored point (thesis 6.1.8).

    Args:
        network: a `KeypointNetwork`.
        placement: its device and number format.
        images: uint8 (B, S, S, 3).
        threshold: least height of a keypoint in the heatmap.
        radius: of non-maximum suppression, cells.
        limit: most detected keypoints of an image.
        known: for each image, points (n, 2) of the input frame that are added where no keypoint is within `radius` cells
            (thesis 5.2.1).
    """
    batch = placement.images(images)
    with placement.precision():
        logits_Bhw, map_Bdhw = network(batch)
        _, mirrored_Bdhw = network(batch.flip(-1))
    side = logits_Bhw.shape[-1]
    heat_Bhw = logits_Bhw.float().sigmoid()
    peaks = heatmaps.peaks(heat_Bhw, threshold, radius, limit)
    if known is not None:
        peaks = _append_known(peaks, heat_Bhw, known, radius)
    mirrored_xy = peaks.xy_BN2.clone()
    mirrored_xy[..., 0] = side - 1 - mirrored_xy[..., 0]
    plain = F.normalize(heatmaps.sample(map_Bdhw.float(), peaks.xy_BN2), dim=-1).half()
    flipped = F.normalize(heatmaps.sample(mirrored_Bdhw.float(), mirrored_xy), dim=-1).half()
    return Pending(peaks, plain, flipped)


def _append_known(
    peaks: heatmaps.Peaks, heat_Bhw: torch.Tensor, known: list[NDArray[np.float32]], radius: int
) -> heatmaps.Peaks:
    """Return the peaks, followed by the known points (input frame) that are farther than `radius` cells from all of them.

    The score of a known point is the height of the heatmap at it.
    """
    counts = np.array([len(xy) for xy in known])
    valid = np.arange(counts.max(initial=0)) < counts[:, None]
    padded = np.zeros((*valid.shape, 2), np.float32)
    padded[valid] = np.concatenate(known)
    xy_BE2 = torch.from_numpy(coordinates.input_to_heatmap(padded)).to(heat_Bhw, non_blocking=True)
    valid_BE = torch.from_numpy(valid).to(heat_Bhw.device, non_blocking=True)
    apart_BEN = (xy_BE2[:, :, None] - peaks.xy_BN2[:, None]).abs().amax(-1) > radius
    valid_BE &= (apart_BEN | ~peaks.valid_BN[:, None]).all(-1)
    score_BE = heatmaps.sample(heat_Bhw[:, None], xy_BE2)[..., 0]
    return heatmaps.Peaks(
        torch.cat([peaks.xy_BN2, xy_BE2], 1),
        torch.cat([peaks.score_BN, score_BE], 1),
        torch.cat([peaks.valid_BN, valid_BE], 1),
    )
