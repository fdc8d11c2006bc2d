"""Predict the K ordered landmarks of images: what a predictor is, and that of stage 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

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
from ray_kplm.points.layout import Layout, Skeleton
from ray_kplm.points.point_set import PointPredictor, PointSet
from ray_kplm.storage import Folder

PredictorFactory = Callable[[Placement], Predictor]
"""Builds a predictor on the given placement. Picklable, so that the worker that predicts can call it."""
Seen = TypeVar("Seen", Predicted, Observed, Described)


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

    def __init__(self, predictor: Predictor, rule: FacingRule, points: PointSet | None = None) -> None:
        """Wrap a predictor that was trained on images as they face one way.

        Args:
            predictor: Of landmarks.
            rule: Gives the facing of an image.
            points: What the landmarks of the turned image are made into; None: they stay.
        """
        self.predictor, self.rule, self.points = predictor, rule, points

    def __call__(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Predicted:
        """Return the landmarks, see `Predictor`, and the facings."""
        found, facing = self._turn(self.predictor, images, boxes)
        side = images.shape[2]
        found = found if self.points is None else self.points.apply(found, side)
        return found._replace(xy=_turned_back(found.xy, facing < 0, side), facing=facing)

    def describe(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> Described:
        """Return what `LandmarkPredictor.describe` does, of the images as they face one way."""
        assert isinstance(self.predictor, LandmarkPredictor)
        seen, facing = self._turn(self.predictor.describe, images, boxes)
        return seen._replace(turned=facing < 0)

    def observe(self, images: NDArray[np.uint8]) -> Observed:
        """Return the landmarks with measures of their quality: see `Predictor`."""
        seen, facing = self._turn(self.predictor.observe, images)
        side = images.shape[2]
        seen = seen if self.points is None else self.points.observe(seen, side)
        return seen._replace(xy=_turned_back(seen.xy, facing < 0, side))

    def _turn(
        self,
        see: Callable[[NDArray[np.uint8]], Seen],
        images: NDArray[np.uint8],
        boxes: NDArray[np.float32] | None = None,
    ) -> tuple[Seen, NDArray[np.float32]]:
        """Return what `see` says of the images as they face the way of the training, and the facings (B,) of the images.

        In an image without a box, the object is looked for where the landmarks of the image and of its mirror image are: either
        way of facing, they lie on the object.
        """
        if boxes is not None and np.isfinite(boxes).all():
            facing = self.rule(images, boxes)
            return see(_turned(images, facing < 0)), facing
        everywhere = np.ones(len(images), bool)
        plain, mirrored = see(images), see(_turned(images, everywhere))
        back = _turned_back(mirrored.xy, everywhere, images.shape[2])
        facing = self.rule(images, boxes, np.concatenate([plain.xy, back], axis=1))
        return _chosen(plain, mirrored, facing < 0), facing


def _chosen(plain: Seen, mirrored: Seen, mirror: NDArray[np.bool_]) -> Seen:
    """Return for each image what was seen in it or in its mirror image."""
    rows = {
        name: np.where(mirror.reshape(-1, *[1] * (one.ndim - 1)), getattr(mirrored, name), one)
        for name, one in plain._asdict().items()
        if one is not None
    }
    return plain._replace(**rows)


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

    skeleton: Skeleton = ()
    """Edges between the points, where these have none of their own."""

    @property
    def layout(self) -> Layout:
        """The points that are predicted, without a name of the category."""
        layout = Layout.of("", self.flip_map) if self.points is None else self.points.layout
        return layout if layout.skeleton else replace(layout, skeleton=self.skeleton)

    def __call__(self, placement: Placement) -> Predictor:
        """Return the predictor on this placement."""
        return self.around(self.inner(placement))

    def inner(self, placement: Placement) -> LandmarkPredictor:
        """Return the predictor of the landmarks as the network finds them, in images that are not turned."""
        flip = self.flip and self.facing is None
        return LandmarkPredictor(
            self.config, self.weights(), self.flip_map, placement, flip=flip, visibility=self.visibility
        )

    def around(self, inner: LandmarkPredictor) -> Predictor:
        """Return the predictor of the points, in images that are turned if the category is seen from the side."""
        if self.facing is not None:
            return OneWayPredictor(inner, self.facing, self.points)
        return inner if self.points is None else PointPredictor(inner, self.points)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of the network, by name. Raises DamageError if they cannot be read."""
        return read_weights(self.network)
