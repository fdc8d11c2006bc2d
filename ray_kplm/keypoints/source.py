"""What a source of generic keypoints returns, and the two ways to be one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.imaging.crops import decode_crop


@dataclass(frozen=True)
class Keypoints:
    """Generic, unordered points of one image.

    xy: float32 (N, 2), crop pixels, (x, y). score: float32 (N,), larger is stronger.
    descriptors: float32 (N, d), unit norm, or None where the source has none.
    """

    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None

    @classmethod
    def empty(cls, descriptor_dim: int) -> Keypoints:
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, descriptor_dim), np.float32))

    def chosen(self, which: NDArray) -> Keypoints:
        """Some of the points, by a mask or indices."""
        descriptors = None if self.descriptors is None else self.descriptors[which]
        return Keypoints(self.xy[which], self.score[which], descriptors)


def pooled(found: Sequence[Keypoints]) -> Keypoints:
    """Points of one image, with descriptors, that were found in several ways, together."""
    descriptors = np.concatenate([k.descriptors for k in found if k.descriptors is not None])
    return Keypoints(np.concatenate([k.xy for k in found]), np.concatenate([k.score for k in found]), descriptors)


class Detector(Protocol):
    """Looks at an image: pure, one image at a time, the same points for the same image."""

    def __call__(self, image: NDArray[np.uint8], box: NDArray | None = None) -> Keypoints: ...


class Source(Protocol):
    """Keypoints of some images of a part, wherever they come from.

    `columns` of schemas.IMAGES is what it wants to see of them.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        """rows: which rows of the part `images` are."""
        ...


class FromImages:
    """A detector as a source."""

    columns: tuple[str, ...] = ("image_id", "image", "box")

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        boxes = images["box"].to_pylist()
        return [
            self._detector(decode_crop(encoded), None if box is None else np.array(box, np.float32))
            for encoded, box in zip(images["image"], boxes, strict=True)
        ]


def inside_box(xy: NDArray, box: NDArray | None) -> NDArray[np.bool_]:
    """Which points (N, 2) lie in the box; all if there is none."""
    if box is None:
        return np.ones(len(xy), dtype=bool)
    return np.asarray(((xy >= box[:2]) & (xy <= box[2:])).all(axis=1))
