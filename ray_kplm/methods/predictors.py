"""Predict the K ordered landmarks of images: what a predictor is, and that of stage 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_kplm.config import Config
from ray_kplm.imaging import coordinates
from ray_kplm.methods.facing import FacingRule
from ray_kplm.methods.landmark_inference import LandmarkInference
from ray_kplm.methods.predicted import Described, Observed, Predicted, Predictor
from ray_kplm.methods.trainer import read_weights
from ray_kplm.methods.visibility import VisibilityModel
from ray_kplm.network import heatmaps
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointPredictor, PointSet
from ray_kplm.storage import Folder

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
        self.inference, self._placement = module.eval(), placement

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks: see `Predictor`."""
        cells, confidence, probability = self.inference.decode(*self.maps(images))
        return Predicted(_in_input(cells), confidence.cpu().numpy(), probability.cpu().numpy())

    @torch.inference_mode()
    def measure(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the landmarks (B, K, 2), input frame, and what their probabilities are computed from, (B, K, F)."""
        maps = self.maps(images)
        cells, _, _ = self.inference.decode(*maps)
        return _in_input(cells), self.inference.features(*maps).cpu().numpy()

    @torch.inference_mode()
    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the landmarks with measures of their quality: see `Predictor`."""
        maps, sigma = self.inference.mean(*self.maps(images)), self._sigma
        cells, confidence = heatmaps.decode(maps, sigma)
        sharpness = heatmaps.sharpness(maps.flatten(0, 1), cells.flatten(0, 1)[:, None], sigma)
        return Observed(
            _in_input(cells), confidence.cpu().numpy(), sharpness.view(confidence.shape).cpu().numpy(), None
        )

    @torch.inference_mode()
    def describe(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Described:
        """Return the landmarks of the images alone, without their mirror images, and what the network sees there."""
        network = self.inference.network
        assert isinstance(network, LandmarkNetwork)
        with self._placement.precision():
            features = network.landmarks.features(network.backbone(self._placement.images(images)))
            maps = network.landmarks.output(features)
        cells, confidence = heatmaps.decode(maps.float(), self._sigma)
        descriptors = heatmaps.sample(features.float(), cells)
        none = np.zeros(len(images), bool)
        return Described(_in_input(cells), confidence.cpu().numpy(), descriptors.cpu().numpy(), none)

    def maps(self, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
        """Return the heatmaps of inputs: see `LandmarkInference.maps`."""
        with self._placement.precision():
            return self.inference.maps(self._placement.images(images))


def _in_input(cells_BK2: Tensor) -> NDArray[np.float32]:
    return coordinates.heatmap_to_input(cells_BK2.cpu().numpy()).astype(np.float32)


class OneWayPredictor:
    """A predictor for a category seen from the side: it turns each image so that all face the way of the training."""

    def __init__(self, predictor: Predictor, rule: FacingRule, finder: Predictor | None = None) -> None:
        """Wrap a predictor that was trained on images as they face one way; `rule` gives the facing of an image.

        Args:
            predictor: Of what is returned.
            rule: Gives the facing of an image.
            finder: Of the landmarks that an object without a box is looked for by; by default `predictor`.
        """
        self.predictor, self.rule, self._finder = predictor, rule, finder or predictor

    def facing(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the facings of images: (B,), see `correspondence.facing.facings`.

        In an image without a box, the object is looked for where the landmarks of the image and of its mirror image are: either
        way of facing, they lie on the object.
        """
        if boxes is not None and np.isfinite(boxes).all():
            return self.rule(images, boxes)
        everywhere = np.ones(len(images), bool)
        found = [self._finder(images).xy]
        found.append(_turned_back(self._finder(_turned(images, everywhere)).xy, everywhere, images.shape[2]))
        return self.rule(images, boxes, np.concatenate(found, axis=1))

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks, see `Predictor`, and the facings."""
        facing = self.facing(images, boxes)
        mirror = facing < 0
        found = self.predictor(_turned(images, mirror))
        return found._replace(xy=_turned_back(found.xy, mirror, images.shape[2]), facing=facing)

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the landmarks with measures of their quality: see `Predictor`."""
        mirror = self.facing(images) < 0
        seen = self.predictor.observe(_turned(images, mirror))
        return seen._replace(xy=_turned_back(seen.xy, mirror, images.shape[2]))

    def describe(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Described:
        """Return what `LandmarkPredictor.describe` does, of the images as they face one way."""
        assert isinstance(self._finder, LandmarkPredictor)
        mirror = self.facing(images, boxes) < 0
        return self._finder.describe(_turned(images, mirror))._replace(turned=mirror)


def _turned(images: NDArray[np.uint8], mirror: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(mirror[:, None, None, None], images[:, :, ::-1], images)


def _turned_back(xy: NDArray[np.float32], mirror: NDArray[np.bool_], width: int) -> NDArray[np.float32]:
    back: NDArray[np.float32] = np.where(mirror[:, None, None], coordinates.mirrored(xy, width), xy).astype(np.float32)
    return back


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
    points: PointSet | None = None
    """The points that the landmarks are made into; None: the landmarks themselves."""

    @property
    def layout(self) -> Layout:
        """The points that are predicted, without a name of the category."""
        return Layout.of("", self.flip_map) if self.points is None else self.points.layout

    def __call__(self, placement: Placement) -> Predictor:
        """Return the predictor on this placement."""
        weights = self.weights()
        flip = self.flip and self.facing is None
        finder = LandmarkPredictor(
            self.config, weights, self.flip_map, placement, flip=flip, visibility=self.visibility
        )
        predictor: Predictor = finder if self.points is None else PointPredictor(finder, self.points)
        return predictor if self.facing is None else OneWayPredictor(predictor, self.facing, finder)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of the network, by name. Raises DamageError if they cannot be read."""
        return read_weights(self.network)
