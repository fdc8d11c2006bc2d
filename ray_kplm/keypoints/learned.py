"""Pretrained keypoint detectors (thesis 6.3.4): what they have in common, and where their weights come from."""

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
from ray_kplm.keypoints.source import Keypoints, inside_box, pooled


class Network(Protocol):
    """All local maxima of an image above the detector's confidence."""

    def __call__(self, image_13HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: RGB in 0..1. Returns xy (N, 2) pixels, score (N,), descriptors (N, d) of unit length."""
        ...


class LearnedDetector:
    """A pretrained network on an image in one or more scales, then non-maximal suppression over `nms` of the longer side.

    The points of all scales are pooled (thesis 5.3.2): of several at one place the strongest stays, with the descriptor of its
    scale.
    """

    def __init__(self, network: Network, config: KeypointsConfig, device: torch.device) -> None:
        self._network, self._config, self._device = network, config, device

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8], box: NDArray | None = None) -> Keypoints:
        """image: uint8 (H, W, 3) RGB; box: x0, y0, x1, y1 outside of which nothing counts."""
        longer_side = self._config.image_size or max(image.shape[:2])
        found = pooled([self._found(image, max(1, round(longer_side * scale))) for scale in self._config.scales])
        found = found.chosen(inside_box(found.xy, box))
        radius = self._config.nms * max(image.shape[:2])
        return found.chosen(strongest_apart(found.xy, found.score, radius)[: self._config.limit])

    def _found(self, image: NDArray[np.uint8], longer_side: int) -> Keypoints:
        """All that the network finds in the image at that longer side, in pixels of the image."""
        seen, to_crop = _resized(image, longer_side)
        pixels = torch.from_numpy(np.ascontiguousarray(seen)).to(self._device)
        xy, score, descriptors = self._network(pixels.permute(2, 0, 1)[None].float() / 255)
        places = coordinates.apply(to_crop, xy.float().cpu().numpy()).astype(np.float32)
        return Keypoints(places, score.float().cpu().numpy(), descriptors.float().cpu().numpy())


def _resized(image: NDArray[np.uint8], longer_side: int) -> tuple[NDArray[np.uint8], coordinates.Affine]:
    """The image with that longer side, and the map back to it."""
    height, width = image.shape[:2]
    if longer_side == max(height, width):
        return image, coordinates.scaling(1.0)
    scale = longer_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=how), coordinates.scaling(width / size[0], height / size[1])


def strongest_apart(xy: NDArray, score: NDArray, radius: float) -> NDArray[np.int64]:
    """Greedy non-maximal suppression: indices, strongest first, of points (N, 2) none of which is within `radius` of a
    stronger one that stays."""
    order = np.argsort(-score, kind="stable")
    near = ((xy[order][:, None] - xy[order][None]) ** 2).sum(-1) < radius**2
    stays = np.ones(len(order), dtype=bool)
    for i in range(len(order)):
        if stays[i]:
            stays[i + 1 :] &= ~near[i, i + 1 :]
    return order[stays]


def extra(module: str, name: str) -> Any:
    """An optional package. Raises ConfigError, which names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"keypoints.detector = {name!r}: needs {module.split('.')[0]} ({error}); pip install 'ray-kplm[{name}]'"
        ) from None


def local_weights(config: KeypointsConfig) -> dict[str, Any]:
    """A checkpoint of tensors. Raises ConfigError where there is none."""
    path = Path(config.weights).expanduser()
    if not config.weights or not path.is_file():
        raise ConfigError(
            f"keypoints.weights = {config.weights!r}: keypoints.detector = {config.detector!r} needs the file of its "
            f"pretrained weights, on every node; its authors publish them"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"keypoints.weights = {config.weights!r}: cannot be read as weights ({reason})") from None


def load_state(network: torch.nn.Module, state: dict[str, Tensor], config: KeypointsConfig) -> None:
    """Raises ConfigError if the weights are another network's."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ConfigError(
            f"keypoints.weights = {config.weights!r}: not the weights of {config.detector} ({reason[:120]})"
        ) from None
    network.eval()
