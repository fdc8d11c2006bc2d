"""From a trained network to K ordered landmarks of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence import duplicates, hungarian
from ray_kplm.correspondence.assignment import nearest, on_grid, squared_distance
from ray_kplm.evaluation import label_free
from ray_kplm.imaging import coordinates
from ray_kplm.methods.extractor import Detected, detect_keypoints
from ray_kplm.methods.landmark_objective import mirrored_mean
from ray_kplm.methods.trainer import NETWORK, load_weights
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork, LandmarkNetwork
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

Assign = Callable[[NDArray[np.int64], NDArray], NDArray]
"""Keypoints of each image (images,), their descriptors (N, d) in a row -> the landmark of each keypoint (N,), NONE: none."""


class Observed(NamedTuple):
    """What a predictor sees in B images, beside the landmarks themselves; NaN where one is not detected.

    xy float32 (B, K, 2), input frame. confidence float32 (B, K), 0 where not detected. sharpness float32 (B, K), of the peaks
    (`heatmaps.sharpness`). separation float32 (B, K), of the descriptors (`quality.separation`); None: it has none.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    separation: NDArray[np.float32] | None


class Predictor(Protocol):
    """Finds K landmarks in images uint8 (B, S, S, 3)."""

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """xy (B, K, 2) input frame, NaN where not detected, and confidence (B, K)."""
        ...

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """The same, and how they were found."""
        ...


PredictorFactory = Callable[[Placement], Predictor]
"""Builds a predictor where it will run; picklable."""


class LandmarkPredictor:
    """Stage 2: the argmax of each channel, sub-cell; its confidence is the peak."""

    def __init__(
        self,
        config: Config,
        weights: dict[str, torch.Tensor],
        flip_map: NDArray[np.int16],
        placement: Placement,
        *,
        flip: bool,
    ) -> None:
        network = LandmarkNetwork(config.network, len(flip_map))
        network.load_state_dict(weights)
        self._network = placement.move(network).eval()
        self._placement, self._sigma = placement, config.stage2.heatmap_sigma
        self._flip_map = torch.from_numpy(flip_map.astype(np.int64)).to(placement.device)
        self._flip = flip and bool((flip_map != NONE).any())  # without partners the mirror tells nothing

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        xy, confidence = heatmaps.decode(self._maps(images), self._sigma)
        return coordinates.heatmap_to_input(xy.cpu().numpy()).astype(np.float32), confidence.cpu().numpy()

    @torch.inference_mode()
    def observe(self, images: NDArray[np.uint8]) -> Observed:
        maps = self._maps(images)
        cells, confidence = heatmaps.decode(maps, self._sigma)
        sharpness = heatmaps.sharpness(maps.flatten(0, 1), cells.flatten(0, 1)[:, None], self._sigma)
        xy = coordinates.heatmap_to_input(cells.cpu().numpy()).astype(np.float32)
        return Observed(xy, confidence.cpu().numpy(), sharpness.view(confidence.shape).cpu().numpy(), None)

    def _maps(self, images: NDArray[np.uint8]) -> torch.Tensor:
        batch = self._placement.images(images)
        with self._placement.precision():
            maps: torch.Tensor = self._network(batch).float()
            if self._flip:
                maps = mirrored_mean(maps, self._network(batch.flip(-1)).float(), self._flip_map)
        return maps


class ClusterPredictor:
    """Stage 1: detected keypoints, each the landmark that `assign` finds for it."""

    def __init__(
        self,
        config: Config,
        weights: dict[str, torch.Tensor],
        assign: Assign,
        centroids: NDArray[np.float32],
        threshold: float,
        placement: Placement,
    ) -> None:
        network = KeypointNetwork(config.network)
        network.load_shared_weights(weights)
        self._network = placement.move(network).eval()
        self._config, self._threshold, self._placement = config, threshold, placement
        self._assign, self._centroids = assign, centroids

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        found = self._find(images)
        return found.column("xy"), np.nan_to_num(found.column("score"))

    @torch.inference_mode()
    def observe(self, images: NDArray[np.uint8]) -> Observed:
        found = self._find(images)
        xy, confidence = found.column("xy"), np.nan_to_num(found.column("score"))
        with self._placement.precision():
            logits_Bhw, _ = self._network(self._placement.images(images))
        heat_Bhw = logits_Bhw.float().sigmoid()
        cells = torch.from_numpy(coordinates.input_to_heatmap(np.nan_to_num(xy))).to(heat_Bhw)
        sharpness = heatmaps.sharpness(heat_Bhw, cells, self._config.stage1.heatmap_sigma).cpu().numpy()
        sharpness[np.isnan(xy).any(axis=-1)] = np.nan
        separation = np.full(confidence.shape, np.nan, np.float32)
        separation[found.image, found.landmark] = label_free.separation(
            found.joined("descriptors"), self._centroids, found.landmark
        )
        return Observed(xy, confidence, sharpness, separation)

    def _find(self, images: NDArray[np.uint8]) -> _Landmarks:
        options = self._config.detection
        found = detect_keypoints(
            self._network, self._placement, images, self._threshold, options.nms_radius, options.limit
        )
        counts = np.array([len(k.xy) for k in found], np.int64)
        cluster = self._assign(counts, np.concatenate([k.descriptors for k in found]))
        return _Landmarks(found, np.repeat(np.arange(len(found)), counts), cluster, len(self._centroids))


class _Landmarks:
    """Detected keypoints that are landmarks: of which image and which of the K, int64 (N,) each."""

    def __init__(self, found: list[Detected], image: NDArray[np.int64], cluster: NDArray, landmarks: int) -> None:
        self._found, self._named, self._landmarks = found, cluster != NONE, landmarks
        self.image, self.landmark = image[self._named], cluster[self._named].astype(np.int64)

    def joined(self, name: str) -> NDArray:
        """A field of the keypoints, one row a landmark found."""
        return np.concatenate([getattr(keypoints, name) for keypoints in self._found])[self._named]

    def column(self, name: str) -> NDArray[np.float32]:
        """A field by image and landmark (B, K, ...), NaN where not detected."""
        values = self.joined(name)
        out = np.full((len(self._found), self._landmarks, *values.shape[1:]), np.nan, np.float32)
        out[self.image, self.landmark] = values
        return out


def assign_unique(centroids: NDArray[np.float32]) -> Assign:
    """The nearest centroid, and of an image's keypoints of one cluster only the nearest (chapter 6)."""
    grid = on_grid(centroids)

    def assign(counts: NDArray[np.int64], descriptors: NDArray) -> NDArray:
        cluster = nearest(descriptors, grid)
        image = np.repeat(np.arange(len(counts)), counts)
        keep = duplicates.keep_nearest(image, cluster, squared_distance(descriptors, grid, cluster))
        return np.where(keep, cluster, NONE)

    return assign


def matched(centroids: NDArray[np.float32], cutoff: NDArray[np.float64]) -> Assign:
    """One keypoint a cluster and one cluster a keypoint, none beyond the cut-off (chapter 5)."""
    grid = on_grid(centroids)
    return lambda counts, descriptors: hungarian.match(counts, descriptors, grid, cutoff)


@dataclass(frozen=True, eq=False)
class LandmarkPredictorFactory:
    """Builds a LandmarkPredictor where it will run."""

    config: Config
    network: Folder
    flip_map: NDArray[np.int16]
    flip: bool

    def __call__(self, placement: Placement) -> LandmarkPredictor:
        weights = load_weights(self.network.read_bytes(NETWORK))
        return LandmarkPredictor(self.config, weights, self.flip_map, placement, flip=self.flip)


@dataclass(frozen=True, eq=False)
class ClusterPredictorFactory:
    """Builds a ClusterPredictor where it will run."""

    config: Config
    network: Folder
    centroids: NDArray[np.float32]
    threshold: float
    cutoff: NDArray[np.float64] | None = None
    """Of chapter 5's matching; None: the nearest centroid."""

    def __call__(self, placement: Placement) -> ClusterPredictor:
        weights = load_weights(self.network.read_bytes(NETWORK))
        assign = assign_unique(self.centroids) if self.cutoff is None else matched(self.centroids, self.cutoff)
        return ClusterPredictor(self.config, weights, assign, self.centroids, self.threshold, placement)
