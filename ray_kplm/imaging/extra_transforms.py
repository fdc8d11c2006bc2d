"""Transforms of the user's own in views (`augment.extra`): a pipeline of albumentations in a file.

They are applied after the geometry of a view and before its colour, blur and noise, so that these act on all that the view
shows, and no transform smooths the noise. What they do to places reaches the labels: a lattice of points goes with the picture.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # without it, the import asks PyPI for a newer version

import albumentations as A
import cv2
import numpy as np
import yaml
from albumentations.augmentations.geometric.distortion import BaseDistortion
from albumentations.core.composition import BaseCompose
from albumentations.core.type_definitions import Targets
from numpy.typing import NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.imaging import coordinates, extra_file
from ray_kplm.imaging.extra_file import unusable
from ray_kplm.imaging.warp import displace

_STEPS = 20
"""Iterations of the fixed point v = p - shift(v), for the points of a distortion."""
_TRIALS = 4
"""Pictures on which each transform is tried before a run."""


def check_extra(uri: str, size: int) -> None:
    """Try each transform of a file on pictures, so that a run does not fail later.

    Args:
        uri: A path or a URI.
        size: Side S of the views, pixels.

    Raises:
        ConfigError: It is no pipeline of albumentations, or has a transform that cannot be used.
    """
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    for transform in _leaves(_pipeline(uri)):
        name = type(transform).__name__
        if isinstance(transform, A.DualTransform) and Targets.KEYPOINTS not in transform._targets:
            raise unusable(uri, f"{name} cannot carry points along, which labels need; take it out")
        transform.p = 1.0
        alone = ExtraTransforms._of(uri, [transform], 1.0, size)
        for seed in range(_TRIALS):
            try:
                alone(picture, np.zeros((2, 2, 2), np.float32), seed)
            except ConfigError:
                raise
            except Exception as error:  # whatever a transform raises, for instance for want of another input
                raise unusable(uri, f"{name} fails on a picture of {size} px ({error}); take it out") from None


class ExtraTransforms:
    """The transforms of a file, applied to views of side S."""

    def __init__(self, uri: str, size: int) -> None:
        """Read the file.

        Args:
            uri: A path or a URI, of what `albumentations.save` wrote.
            size: Side S of the views, pixels.

        Raises:
            ConfigError: It cannot be read, or is no pipeline of albumentations.
        """
        loaded = _pipeline(uri)
        self._set(uri, loaded.transforms, loaded.p, size)

    @classmethod
    def _of(cls, uri: str, transforms: list[Any], p: float, size: int) -> ExtraTransforms:
        made = cls.__new__(cls)
        made._set(uri, transforms, p, size)
        return made

    def _set(self, uri: str, transforms: list[Any], p: float, size: int) -> None:
        self._uri, self._size = uri, size
        points = A.KeypointParams(format="xy", remove_invisible=False)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Got processor for keypoints"
            )  # transforms of colours alone are right, too
            self._compose = A.Compose(transforms, keypoint_params=points, p=p)
        self._nodes = list(_nodes(self._compose))
        for node in self._nodes:
            if isinstance(node, BaseDistortion):
                node.apply_to_keypoints = _carried
                node._key2func["keypoints"] = _carried
        at = np.linspace(0, size - 1, size // coordinates.STRIDE + 1)
        self._places = np.stack(np.meshgrid(at, at), axis=-1)

    def __call__(
        self, picture: NDArray[np.uint8], shifts: NDArray[np.float32], seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Transform a view.

        Args:
            picture: (S, S, 3).
            shifts: (H, H, 2), what moved the view's points before, pixels.
            seed: Each transform draws from a stream of its own, which the seed and its place in the file decide.

        Returns:
            The picture, and the shifts (G, G, 2) of both. The stored points are at most a heatmap cell apart.

        Raises:
            ConfigError: A transform mirrored the view, changed its size or lost points.
        """
        for number, node in enumerate(self._nodes):
            node.random_generator = np.random.default_rng((seed, number))
            node.py_random = random.Random(f"{seed} {number}")
        moved = displace(self._places.reshape(1, -1, 2), shifts[None], self._size)[0]
        out = self._compose(image=picture, keypoints=moved)
        changed: NDArray[np.uint8] = out["image"]
        if len(out["keypoints"]) != len(moved):
            raise unusable(self._uri, "a transform loses points, which labels need; take it out")
        after = np.asarray(out["keypoints"], np.float64).reshape(self._places.shape)
        if changed.shape != picture.shape or changed.dtype != np.uint8:
            raise unusable(self._uri, f"it turns a view of {picture.shape} to {changed.shape}; the size must stay")
        if _mirrors(moved.reshape(self._places.shape), after):
            raise unusable(
                self._uri, "a transform mirrors views, which swaps left and right identities: method.mirror is for that"
            )
        return changed, (after - self._places).astype(np.float32)


def _carried(keypoints: NDArray[Any], map_x: NDArray[Any], map_y: NDArray[Any], **params: Any) -> NDArray[np.float32]:
    """Return where a distortion moves points (N, 2 and more): the inverse of the map from its picture to the one before.

    albumentations 2.0.8 rounds them to whole pixels, and loses some.
    """
    rows, columns = np.indices(map_x.shape, dtype=np.float32)
    back = np.stack([map_x - columns, map_y - rows], axis=-1).astype(np.float32)
    start = keypoints[None, :, :2].astype(np.float32)
    moved = start
    for _ in range(_STEPS):
        moved = start - cv2.remap(back, moved, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.concatenate([moved[0], keypoints[:, 2:]], axis=1).astype(np.float32)


def _mirrors(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Return whether the lattice (G, G, 2) turned over, judged by its corners."""
    return _turn(before) * _turn(after) < 0


def _turn(lattice: NDArray[np.float64]) -> float:
    """Return the signed area that the lattice's sides span."""
    (x, y), (u, v) = lattice[0, -1] - lattice[0, 0], lattice[-1, 0] - lattice[0, 0]
    return float(x * v - y * u)


def _pipeline(uri: str) -> Any:
    """Return the pipeline in a file."""
    text = extra_file.content(uri)
    try:
        tree = yaml.safe_load(text) if uri.endswith((".yaml", ".yml")) else json.loads(text)
        loaded = A.from_dict(tree)
    except Exception as error:  # of YAML, JSON and albumentations, in many classes
        reason = " ".join(str(error).split())[:120]
        raise unusable(uri, f"no pipeline that albumentations.save wrote ({type(error).__name__}: {reason})") from None
    if not isinstance(loaded, A.Compose):
        raise unusable(uri, f"holds a {type(loaded).__name__}; it must be an albumentations.Compose")
    return loaded


def _nodes(pipeline: BaseCompose) -> Iterator[Any]:
    """Yield a pipeline and all that it is made of."""
    yield pipeline
    for part in pipeline.transforms:
        if isinstance(part, BaseCompose):
            yield from _nodes(part)
        else:
            yield part


def _leaves(pipeline: BaseCompose) -> list[Any]:
    """Return the transforms of a pipeline."""
    return [node for node in _nodes(pipeline) if not isinstance(node, BaseCompose)]
