"""Frozen descriptors of keypoints beside learnt ones: fewer dimensions, a blend, and a share that fades over the rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.dense_features.feature_map import DenseFeatures, normalise, sample_maps


@dataclass(frozen=True)
class Projection:
    """Principal components of frozen descriptors.

    Attributes:
        mean: float32 (d,).
        components: float32 (d, r), orthonormal columns.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    @classmethod
    def fit(cls, sample: NDArray[np.float32], dimensions: int) -> Projection:
        """Return the first principal components of a sample (N, d): at most `dimensions` of them."""
        mean = sample.mean(0)
        covariance = np.cov(sample, rowvar=False, bias=True).reshape(len(mean), len(mean))
        _, vectors = np.linalg.eigh(covariance)  # ascending
        components = vectors[:, ::-1][:, :dimensions]
        signs = np.sign(components[np.abs(components).argmax(0), np.arange(components.shape[1])])
        return cls(mean.astype(np.float32), (components * signs).astype(np.float32))

    def __call__(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the coordinates (..., r) of descriptors (..., d), of unit norm."""
        projected: NDArray[np.float32] = np.matmul(descriptors - self.mean, self.components)
        return normalise(projected)


def describe_keypoints(
    features: DenseFeatures, images: NDArray[np.uint8], xy: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return frozen descriptors of keypoints, and those of the same places in the mirror images.

    Images smaller than the model's `input_size` are enlarged to it.

    Args:
        features: The model.
        images: RGB (B, H, W, 3), in the frame of xy.
        xy: (B, K, 2), pixels; rows that are padding may be anything finite.

    Returns:
        Two arrays (B, K, d) as the model gives them, neither centred nor of unit norm.
    """
    width, height = images.shape[2], images.shape[1]
    mirrored_xy = np.stack([width - 1 - xy[..., 0], xy[..., 1]], axis=-1)
    enlarged = _enlarged(images, features.input_size)
    mirrored = np.ascontiguousarray(enlarged[:, :, ::-1])
    size = (width, height)
    return sample_maps(features(enlarged), xy, size), sample_maps(features(mirrored), mirrored_xy, size)


def _enlarged(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return images (B, H, W, 3) whose longer side has at least this many pixels."""
    height, width = images.shape[1:3]
    factor = side / max(height, width)
    if factor <= 1:
        return images
    size = (round(width * factor), round(height * factor))
    enlarged: NDArray[np.uint8] = np.stack(
        [cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in images]
    )
    return enlarged


def blend(learnt: NDArray[Any], frozen: NDArray[Any], share: float) -> NDArray[np.float32]:
    """Return descriptors whose dot product is `1 - share` of the learnt cosine and `share` of the frozen one.

    Args:
        learnt: (N, d), unit norm.
        frozen: (N, r), unit norm.
        share: From 0, the learnt ones alone, to 1.

    Returns:
        (N, d + r), unit norm: so K-means and nearest neighbours need no other distance.
    """
    parts = [np.sqrt(1 - share) * learnt.astype(np.float32), np.sqrt(share) * frozen.astype(np.float32)]
    blended: NDArray[np.float32] = np.concatenate(parts, axis=1).astype(np.float32)
    return blended


def frozen_share(round: int, rounds: int, start: float) -> float:
    """Return the share of the frozen descriptors in a round's clustering.

    Args:
        round: 0 is the warm-up.
        rounds: Rounds after which the share is 0; it falls linearly from `start` to there. 0: always 0.
        start: Share after the warm-up.
    """
    return start * max(0.0, 1 - round / rounds) if rounds else 0.0
