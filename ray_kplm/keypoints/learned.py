"""Pretrained keypoint detectors (thesis 6.3.4): the detector around a network, and loading of packages and weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_kplm.config import KeypointsConfig
from ray_kplm.errors import ConfigError
from ray_kplm.imaging import coordinates
from ray_kplm.keypoints.source import Keypoints, concatenate, inside_box


class PretrainedNetwork(Protocol):
    """A pretrained network that finds the local maxima of an image above its confidence threshold."""

    def __call__(self, image_13HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return xy (N, 2) pixels, score (N,) and descriptors (N, d) of unit norm, for an RGB image from 0 to 1."""
        ...


class LearnedDetector:
    """A pretrained network at one or more scales of an image, followed by non-maximum suppression.

    The points of all scales are pooled (thesis 5.3.2): of several points at one place the strongest stays, with the descriptor
    of its scale.
    """

    def __init__(self, network: PretrainedNetwork, config: KeypointsConfig, device: torch.device) -> None:
        """Wrap the network; config has the scales, the suppression radius and the number of points."""
        self._network, self._config, self._device = network, config, device

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8], box: NDArray[Any] | None = None) -> Keypoints:
        """Detect the keypoints of an image, see `source.Detector`."""
        longer_side = self._config.image_size or max(image.shape[:2])
        keypoints = concatenate(
            [self._detect(image, max(1, round(longer_side * scale))) for scale in self._config.scales]
        )
        keypoints = keypoints.select(inside_box(keypoints.xy, box))
        radius = self._config.nms * max(image.shape[:2])
        return keypoints.select(non_maximum_suppression(keypoints.xy, keypoints.score, radius)[: self._config.limit])

    def _detect(self, image: NDArray[np.uint8], longer_side: int) -> Keypoints:
        """Return the network's keypoints in the image resized to a longer side, in pixels of the image as given."""
        resized, to_crop = _resize(image, longer_side)
        pixels = torch.from_numpy(np.ascontiguousarray(resized)).to(self._device)
        xy, score, descriptors = self._network(pixels.permute(2, 0, 1)[None].float() / 255)
        crop_xy = coordinates.apply(to_crop, xy.float().cpu().numpy()).astype(np.float32)
        return Keypoints(crop_xy, score.float().cpu().numpy(), descriptors.float().cpu().numpy())


def _resize(image: NDArray[np.uint8], longer_side: int) -> tuple[NDArray[np.uint8], coordinates.Affine]:
    """Return the image resized to a longer side, and the map of its points to the image as given."""
    height, width = image.shape[:2]
    if longer_side == max(height, width):
        return image, coordinates.scaling(1.0)
    scale = longer_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=interpolation), coordinates.scaling(width / size[0], height / size[1])


def non_maximum_suppression(xy: NDArray[Any], score: NDArray[Any], radius: float) -> NDArray[np.int64]:
    """Return the indices of the points that are kept, strongest first; each suppresses weaker points within `radius`.

    Args:
        xy: (N, 2).
        score: (N,).
        radius: In the units of xy.
    """
    order = np.argsort(-score, kind="stable")
    near = ((xy[order][:, None] - xy[order][None]) ** 2).sum(-1) < radius**2
    kept = np.ones(len(order), dtype=bool)
    for i in range(len(order)):
        if kept[i]:
            kept[i + 1 :] &= ~near[i, i + 1 :]
    return order[kept]


def import_extra(module: str, extra: str, option: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: The module.
        extra: The extra that installs the package.
        option: The option that needs it and its value, for the message: `"keypoints.detector = 'aliked'"`.

    Raises:
        ConfigError: The package is missing. The message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{option}: needs {module.split('.')[0]} ({error}); pip install 'ray-kplm[{extra}]'"
        ) from None


def unusable_extra(option: str, error: ImportError) -> ConfigError:
    """Return the error of a model whose module transformers 5 imports late, and cannot.

    transformers imports torchvision wherever it is installed; a torchvision that was built for another torch then fails.
    """
    reason = " ".join(str(error).split())
    return ConfigError(
        f"{option}: transformers cannot import the model ({reason[:120]}); "
        "a torchvision that is installed must be built for this torch"
    )


def load_local_weights(config: KeypointsConfig) -> dict[str, Any]:
    """Load the checkpoint `keypoints.weights`.

    Raises:
        ConfigError: There is no such file, or it is no checkpoint of tensors.
    """
    path = Path(config.weights).expanduser()
    if not config.weights or not path.is_file():
        raise ConfigError(
            f"keypoints.weights = {config.weights!r}: keypoints.detector = {config.detector!r} needs the file of its "
            f"pretrained weights, on every node; download them from its authors"
        )
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"keypoints.weights = {config.weights!r}: cannot be read as weights ({reason})") from None
    return checkpoint


def load_state(network: torch.nn.Module, state: dict[str, Tensor], config: KeypointsConfig) -> None:
    """Load weights into a network and switch it to evaluation.

    Raises:
        ConfigError: The weights are those of another network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ConfigError(
            f"keypoints.weights = {config.weights!r}: not the weights of {config.detector} ({reason[:120]})"
        ) from None
    network.eval()
