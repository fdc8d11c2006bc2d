"""Generic keypoints, and the two interfaces that produce them: a detector on images and a source for parts of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.imaging.crops import decode_crop


@dataclass(frozen=True)
class Keypoints:
    """The generic, unordered keypoints of one image.

    Attributes:
        xy: (N, 2), crop frame.
        score: (N,), larger is stronger.
        descriptors: (N, d), unit norm; None if the source has none.
    """

    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None

    @classmethod
    def empty(cls, descriptor_dim: int) -> Keypoints:
        """Return no keypoints, with descriptors of width `descriptor_dim`."""
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, descriptor_dim), np.float32))

    def select(self, which: NDArray[Any]) -> Keypoints:
        """Return some of the keypoints, chosen by a mask or by indices."""
        descriptors = None if self.descriptors is None else self.descriptors[which]
        return Keypoints(self.xy[which], self.score[which], descriptors)


def concatenate(keypoints: Sequence[Keypoints]) -> Keypoints:
    """Return several sets of keypoints of one image, all with descriptors, as one set."""
    descriptors = np.concatenate([k.descriptors for k in keypoints if k.descriptors is not None])
    return Keypoints(
        np.concatenate([k.xy for k in keypoints]), np.concatenate([k.score for k in keypoints]), descriptors
    )


class Detector(Protocol):
    """A keypoint detector: a pure function of one image."""

    def __call__(self, image: NDArray[np.uint8], box: NDArray[Any] | None = None) -> Keypoints:
        """Detect the keypoints of an image.

        Args:
            image: (H, W, 3), RGB.
            box: x0, y0, x1, y1, pixels; keypoints outside of it are dropped. None: no box is known.
        """
        ...


class KeypointSource(Protocol):
    """A source of the keypoints of a dataset's images: a detector, a file or the annotation."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of schemas.IMAGES that the source reads."""
        ...

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        """Return the keypoints of some images of a part.

        Args:
            part: Name of the part.
            images: The images, with `columns`.
            rows: The rows of the part that the images are.
        """
        ...


class DetectorSource:
    """A detector as a source of keypoints."""

    columns: tuple[str, ...] = ("image_id", "image", "box")

    def __init__(self, detector: Detector) -> None:
        """Wrap the detector."""
        self._detector = detector

    def __call__(self, part: str, images: pa.Table, rows: NDArray[np.int64]) -> list[Keypoints]:
        """Decode the images and detect their keypoints."""
        boxes = images["box"].to_pylist()
        return [
            self._detector(decode_crop(encoded), None if box is None else np.array(box, np.float32))
            for encoded, box in zip(images["image"], boxes, strict=True)
        ]


def inside_box(xy: NDArray[Any], box: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Return which points (N, 2) lie in the box or on its border: (N,); all of them without a box."""
    if box is None:
        return np.ones(len(xy), dtype=bool)
    return np.asarray(((xy >= box[:2]) & (xy <= box[2:])).all(axis=1))
