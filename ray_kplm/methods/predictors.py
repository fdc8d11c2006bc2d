"""Predict the K ordered landmarks of images with a trained network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_kplm.config import Config
from ray_kplm.correspondence import duplicates, hungarian
from ray_kplm.correspondence.assignment import nearest, on_grid, squared_distance
from ray_kplm.dense_features import build_features
from ray_kplm.evaluation import label_free
from ray_kplm.imaging import coordinates
from ray_kplm.methods.extractor import Detected, detect_keypoints
from ray_kplm.methods.facing import FacingRule
from ray_kplm.methods.frozen_descriptors import FrozenDescriptors
from ray_kplm.methods.landmark_inference import LandmarkInference
from ray_kplm.methods.trainer import read_weights
from ray_kplm.methods.visibility import VisibilityModel
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import KeypointNetwork, LandmarkNetwork
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

Assign = Callable[[NDArray[np.int64], NDArray[np.float16]], NDArray[np.integer[Any]]]
"""(number of keypoints of each image (B,), descriptors of all (N, d)) -> the landmark of each keypoint (N,), or NONE."""


class Observed(NamedTuple):
    """The landmarks that a predictor finds in B images, with measures of their quality. NaN where one is not detected.

    Attributes:
        xy: float32 (B, K, 2), input frame.
        confidence: float32 (B, K), 0 where not detected.
        sharpness: float32 (B, K), of the heatmap's peak (`heatmaps.sharpness`).
        separation: float32 (B, K), of the descriptor from other clusters (`label_free.separation`); None without descriptors.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    separation: NDArray[np.float32] | None


class Predicted(NamedTuple):
    """The landmarks that a predictor finds in B images.

    Attributes:
        xy: float32 (B, K, 2), input frame; NaN where not detected.
        confidence: float32 (B, K), the peaks of the heatmaps; 0 where not detected.
        probability: float32 (B, K), of being found; NaN if the detector has no `VisibilityModel`.
        facing: float32 (B,), see `correspondence.facing.facings`; None for a category that is not seen from the side.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    facing: NDArray[np.float32] | None = None


class Predictor(Protocol):
    """Predicts K landmarks in images, uint8 (B, S, S, 3)."""

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks of images.

        boxes: (B, 4) of the objects in the input frame, NaN where unknown, for predictors that look which way objects face.
        """
        ...

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the same landmarks with measures of their quality."""
        ...


PredictorFactory = Callable[[Placement], Predictor]
"""Builds a predictor on the given placement. Picklable, so that the worker that predicts can call it."""


class LandmarkPredictor:
    """Stage 2: a landmark is the peak of its channel, decoded between cells; its confidence is the peak's height."""

    def __init__(
        self,
        config: Config,
        weights: dict[str, torch.Tensor],
        flip_map: NDArray[np.int16],
        placement: Placement,
        *,
        flip: bool,
        visibility: VisibilityModel | None = None,
    ) -> None:
        """Build the network.

        Args:
            config: the run's.
            weights: of a `LandmarkNetwork`.
            flip_map: (K,) mirror partners of the landmarks, or NONE.
            placement: device and number format.
            flip: whether heatmaps are averaged with those of the mirror image.
            visibility: gives the probabilities.
        """
        network = LandmarkNetwork(config.network, len(flip_map))
        network.load_state_dict(weights)
        partners = torch.from_numpy(flip_map.astype(np.int64))
        self._sigma = config.stage2.heatmap_sigma
        module = LandmarkInference(network, partners, config.stage2.heatmap_sigma, flip=flip, visibility=visibility)
        placement.move(module)
        self._module, self._placement = module.eval(), placement

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks: see `Predictor`."""
        cells, confidence, probability = self._module.decode(*self._maps(images))
        return Predicted(_in_input(cells), confidence.cpu().numpy(), probability.cpu().numpy())

    @torch.inference_mode()
    def measure(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the landmarks (B, K, 2), input frame, and what their probabilities are computed from, (B, K, F)."""
        maps = self._maps(images)
        cells, _, _ = self._module.decode(*maps)
        return _in_input(cells), self._module.features(*maps).cpu().numpy()

    @torch.inference_mode()
    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the landmarks with measures of their quality: see `Predictor`."""
        maps, sigma = self._module.mean(*self._maps(images)), self._sigma
        cells, confidence = heatmaps.decode(maps, sigma)
        sharpness = heatmaps.sharpness(maps.flatten(0, 1), cells.flatten(0, 1)[:, None], sigma)
        return Observed(
            _in_input(cells), confidence.cpu().numpy(), sharpness.view(confidence.shape).cpu().numpy(), None
        )

    def _maps(self, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
        with self._placement.precision():
            return self._module.maps(self._placement.images(images))


def _in_input(cells_BK2: Tensor) -> NDArray[np.float32]:
    return coordinates.heatmap_to_input(cells_BK2.cpu().numpy()).astype(np.float32)


class OneWayPredictor:
    """A predictor for a category seen from the side: it turns each image so that all face the way of the training."""

    def __init__(self, predictor: Predictor, rule: FacingRule) -> None:
        """Wrap a predictor that was trained on images as they face one way; `rule` gives the facing of an image."""
        self._predictor, self._rule = predictor, rule

    def facing(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the facings of images: (B,), see `correspondence.facing.facings`.

        In an image without a box, the object is looked for where the landmarks of the image and of its mirror image are: either
        way of facing, they lie on the object.
        """
        if boxes is not None and np.isfinite(boxes).all():
            return self._rule(images, boxes)
        everywhere = np.ones(len(images), bool)
        found = [self._predictor(images).xy]
        found.append(_turned_back(self._predictor(_turned(images, everywhere)).xy, everywhere, images.shape[2]))
        return self._rule(images, boxes, np.concatenate(found, axis=1))

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks, see `Predictor`, and the facings."""
        facing = self.facing(images, boxes)
        mirror = facing < 0
        found = self._predictor(_turned(images, mirror))
        return found._replace(xy=_turned_back(found.xy, mirror, images.shape[2]), facing=facing)

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the landmarks with measures of their quality: see `Predictor`."""
        mirror = self.facing(images) < 0
        seen = self._predictor.observe(_turned(images, mirror))
        return seen._replace(xy=_turned_back(seen.xy, mirror, images.shape[2]))


def _turned(images: NDArray[np.uint8], mirror: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(mirror[:, None, None, None], images[:, :, ::-1], images)


def _turned_back(xy: NDArray[np.float32], mirror: NDArray[np.bool_], width: int) -> NDArray[np.float32]:
    back: NDArray[np.float32] = np.where(mirror[:, None, None], coordinates.mirrored(xy, width), xy).astype(np.float32)
    return back


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
        separation = np.full(confidence.shape, np.nan, np.float32)
        separation[landmarks.image, landmarks.landmark] = label_free.separation(
            landmarks.field("descriptors"), self._centroids, landmarks.landmark
        )
        return Observed(xy, confidence, sharpness, separation)

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
class LandmarkPredictorFactory:
    """Builds a `LandmarkPredictor`: see `PredictorFactory`."""

    config: Config
    network: Folder
    """Folder of the stored state of stage 2."""
    flip_map: NDArray[np.int16]
    flip: bool
    facing: FacingRule | None = None
    """Which way objects face, if the network was trained on images as they face one way."""
    visibility: VisibilityModel | None = None
    """Gives the probabilities."""

    def __call__(self, placement: Placement) -> LandmarkPredictor | OneWayPredictor:
        """Return the predictor on this placement."""
        weights = read_weights(self.network)
        flip = self.flip and self.facing is None
        predictor = LandmarkPredictor(
            self.config, weights, self.flip_map, placement, flip=flip, visibility=self.visibility
        )
        return predictor if self.facing is None else OneWayPredictor(predictor, self.facing)


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
