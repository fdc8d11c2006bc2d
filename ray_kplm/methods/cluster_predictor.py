"""Predict landmarks with a network of stage 1 and the clusters of its descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence import duplicates, hungarian
from ray_kplm.correspondence.assignment import nearest, on_grid, squared_distance
from ray_kplm.dense_features import build_features
from ray_kplm.evaluation import label_free
from ray_kplm.imaging import coordinates
from ray_kplm.methods.extractor import Detected, detect_keypoints
from ray_kplm.methods.facing import FacingRule
from ray_kplm.methods.frozen_descriptors import FrozenDescriptors
from ray_kplm.methods.predicted import Observed, Predicted
from ray_kplm.methods.predictors import OneWayPredictor
from ray_kplm.methods.trainer import read_weights
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

Assign = Callable[[NDArray[np.int64], NDArray[np.float16]], NDArray[np.integer[Any]]]
"""(number of keypoints of each image (B,), descriptors of all (N, d)) -> the landmark of each keypoint (N,), or NONE."""


class ClusterPredictor:
    """Stage 1: detected keypoints, to which `assign` gives landmarks by their descriptors (thesis 6.3.3)."""

    def __init__(
        self,
        config: Config,
        weights: dict[str, torch.Tensor],
        assign: Assign,
        centroids: NDArray[np.float32],
        threshold: float,
        placement: Placement,
        *,
        frozen: FrozenDescriptors | None = None,
    ) -> None:
        """Build the network.

        Args:
            config: the run's.
            weights: of a network of stage 1.
            assign: gives landmarks to keypoints.
            centroids: (K, d) of the landmarks, for `Observed.separation`.
            threshold: least height of a keypoint in the heatmap.
            placement: device and number format.
            frozen: what the descriptors were blended with where the centroids come from; None: nothing.
        """
        network = KeypointNetwork(config.network)
        network.load_shared_weights(weights)
        self._network = placement.move(network).eval()
        self._config, self._threshold, self._placement = config, threshold, placement
        self._assign, self._centroids, self._frozen = assign, centroids, frozen

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks: see `Predictor`."""
        landmarks = self._detect(images)
        confidence = np.nan_to_num(landmarks.by_landmark("score"))
        return Predicted(landmarks.by_landmark("xy"), confidence, np.full_like(confidence, np.nan))

    @torch.inference_mode()
    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the landmarks with measures of their quality: see `Predictor`."""
        landmarks = self._detect(images)
        xy, confidence = landmarks.by_landmark("xy"), np.nan_to_num(landmarks.by_landmark("score"))
        with self._placement.precision():
            logits_Bhw, _ = self._network(self._placement.images(images))
        heat_Bhw = logits_Bhw.float().sigmoid()
        cells = torch.from_numpy(coordinates.input_to_heatmap(np.nan_to_num(xy))).to(heat_Bhw)
        sharpness = heatmaps.sharpness(heat_Bhw, cells, self._config.stage1.heatmap_sigma).cpu().numpy()
        sharpness[np.isnan(xy).any(axis=-1)] = np.nan
        return Observed(xy, confidence, sharpness, self._separation(landmarks, len(images)))

    def separation(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `Observed.separation` of images alone: (B, K), NaN where a landmark is not detected."""
        return self._separation(self._detect(images), len(images))

    def _separation(self, landmarks: _Landmarks, images: int) -> NDArray[np.float32]:
        separation = np.full((images, len(self._centroids)), np.nan, np.float32)
        separation[landmarks.image, landmarks.landmark] = label_free.separation(
            landmarks.field("descriptors"), self._centroids, landmarks.landmark
        )
        return separation

    def _detect(self, images: NDArray[np.uint8]) -> _Landmarks:
        options = self._config.detection
        detected = detect_keypoints(
            self._network, self._placement, images, self._threshold, options.nms_radius, options.limit
        )
        if self._frozen is not None:
            detected = self._frozen.beside(detected, images)
        counts = np.array([len(k.xy) for k in detected], np.int64)
        cluster = self._assign(counts, np.concatenate([k.descriptors for k in detected]))
        return _Landmarks(detected, np.repeat(np.arange(len(detected)), counts), cluster, len(self._centroids))


class _Landmarks:
    """The keypoints of B images that are landmarks: N of them, with `image` and `landmark`, int64 (N,), of each."""

    def __init__(
        self,
        detected: list[Detected],
        image: NDArray[np.int64],
        cluster: NDArray[np.integer[Any]],
        landmarks: int,
    ) -> None:
        """Take image and cluster (NONE for keypoints that are no landmarks) of all detected keypoints, in their order."""
        self._detected, self._assigned, self._landmarks = detected, cluster != NONE, landmarks
        self.image, self.landmark = image[self._assigned], cluster[self._assigned].astype(np.int64)

    def field(self, name: str) -> NDArray[Any]:
        """Return a field of `Detected` for each landmark: (N, ...)."""
        values: NDArray[Any] = np.concatenate([getattr(keypoints, name) for keypoints in self._detected])[
            self._assigned
        ]
        return values

    def by_landmark(self, name: str) -> NDArray[np.float32]:
        """Return a field of `Detected` by image and landmark: (B, K, ...), NaN where not detected."""
        values = self.field(name)
        out = np.full((len(self._detected), self._landmarks, *values.shape[1:]), np.nan, np.float32)
        out[self.image, self.landmark] = values
        return out


def assign_unique(centroids: NDArray[np.float32]) -> Assign:
    """Return the assignment of chapter 6: the nearest centroid, and in an image only the nearest keypoint of each cluster."""
    grid = on_grid(centroids)

    def assign(counts: NDArray[np.int64], descriptors: NDArray[np.float16]) -> NDArray[np.integer[Any]]:
        cluster = nearest(descriptors, grid)
        image = np.repeat(np.arange(len(counts)), counts)
        keep = duplicates.keep_nearest(image, cluster, squared_distance(descriptors, grid, cluster))
        unique: NDArray[np.integer[Any]] = np.where(keep, cluster, NONE)
        return unique

    return assign


def assign_hungarian(centroids: NDArray[np.float32], cutoff: NDArray[np.float64]) -> Assign:
    """Return the assignment of chapter 5: keypoints to clusters one to one, none beyond the cluster's cut-off distance."""
    grid = on_grid(centroids)

    def assign(counts: NDArray[np.int64], descriptors: NDArray[np.float16]) -> NDArray[np.integer[Any]]:
        cluster: NDArray[np.integer[Any]] = hungarian.match(counts, descriptors, grid, cutoff)
        return cluster

    return assign


@dataclass(frozen=True, eq=False)
class ClusterPredictorFactory:
    """Builds a `ClusterPredictor`: see `PredictorFactory`."""

    config: Config
    network: Folder
    """Folder of the stored state of a round."""
    centroids: NDArray[np.float32]
    threshold: float
    cutoff: NDArray[np.float64] | None = None
    """(K,) cut-off distances of `assign_hungarian`; None for `assign_unique`."""
    facing: FacingRule | None = None
    """Which way objects face, if the network was trained on images as they face one way."""
    round: Folder | None = None
    """Folder of the round, in which its projection lies; by default the one around `network`."""

    def __call__(self, placement: Placement) -> ClusterPredictor | OneWayPredictor:
        """Return the predictor on this placement."""
        weights = read_weights(self.network)
        assign = assign_unique(self.centroids) if self.cutoff is None else assign_hungarian(self.centroids, self.cutoff)
        frozen = None
        if self.centroids.shape[1] > self.config.network.descriptor_dim:  # of blended descriptors
            frozen = FrozenDescriptors.read(
                self.round or self.network.parent, build_features(self.config, placement.device)
            )
        predictor = ClusterPredictor(
            self.config, weights, assign, self.centroids, self.threshold, placement, frozen=frozen
        )
        return predictor if self.facing is None else OneWayPredictor(predictor, self.facing)
