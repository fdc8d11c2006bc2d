"""Descriptors of a frozen model beside the learnt ones of detected keypoints (docs/method.md 3)."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ray_kplm.dense_features.blend import Projection, blend, describe_keypoints
from ray_kplm.dense_features.feature_map import DenseFeatures
from ray_kplm.errors import CollapseError
from ray_kplm.methods.extractor import Detected
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import load_arrays

PROJECTION = "projection.npz"
"""File of a round's projection and share, beside the folder of the round's network."""
_DIMENSIONS = 64
"""Principal components that are kept of the frozen descriptors."""
_FIT_POINTS = 20_000
"""Maximum number of frozen descriptors that the components are fitted on."""


@dataclass(frozen=True, eq=False)
class FrozenDescriptors:
    """A frozen model, and how its descriptors are blended with learnt ones in a round.

    Attributes:
        features: The model.
        projection: To the principal components that are blended.
        share: Of the frozen descriptors, from 0 to 1, see `blend`.
    """

    features: DenseFeatures
    projection: Projection
    share: float

    def beside(self, detected: list[Detected], images: NDArray[np.uint8]) -> list[Detected]:
        """Return keypoints with blended descriptors (N, d + r) in place of the learnt ones (N, d).

        Args:
            detected: The keypoints of each image, in the input frame.
            images: uint8 (B, S, S, 3).
        """
        ends = np.cumsum([len(keypoints.xy) for keypoints in detected])[:-1]
        plain, flipped = (
            np.split(self.projection(described), ends)
            for described in describe_detected(self.features, images, detected)
        )
        return [
            replace(
                keypoints,
                descriptors=blend(keypoints.descriptors, p, self.share).astype(np.float16),
                descriptors_flipped=blend(keypoints.descriptors_flipped, f, self.share).astype(np.float16),
            )
            for keypoints, p, f in zip(detected, plain, flipped, strict=True)
        ]

    @classmethod
    def read(cls, folder: Folder, features: DenseFeatures) -> FrozenDescriptors:
        """Return the model with the projection and the share of a round's folder."""
        with folder.parsing(PROJECTION):
            arrays = load_arrays(folder.read_bytes(PROJECTION))
            return cls(features, Projection(arrays["mean"], arrays["components"]), float(arrays["share"]))


def write_projection(folder: Folder, projection: Projection, share: float) -> None:
    """Write the projection and the share to a round's folder."""
    buffer = io.BytesIO()
    np.savez(buffer, mean=projection.mean, components=projection.components, share=share)
    folder.write_bytes(PROJECTION, buffer.getvalue())


def describe_detected(
    features: DenseFeatures, images: NDArray[np.uint8], detected: list[Detected]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `describe_keypoints` of the N keypoints of all images: two arrays (N, d)."""
    counts = np.array([len(keypoints.xy) for keypoints in detected])
    present = np.arange(counts.max(initial=0)) < counts[:, None]
    xy = np.zeros((*present.shape, 2), np.float32)
    xy[present] = np.concatenate([keypoints.xy for keypoints in detected])
    plain, flipped = describe_keypoints(features, images, xy)
    return plain[present], flipped[present]


def fit_projection(sample: NDArray[np.float32]) -> Projection:
    """Return the principal components of a sample of frozen descriptors (N, d), of which evenly spaced rows are used.

    Raises:
        CollapseError: The sample has fewer than two descriptors.
    """
    if len(sample) < 2:
        raise CollapseError(
            f"{len(sample)} keypoints in the images on which the threshold is calibrated: features_share needs 2 or more; look "
            f"at detection.threshold, detection.calibration_images and stage1.warmup_iterations"
        )
    return Projection.fit(sample[:: -(-len(sample) // _FIT_POINTS)], _DIMENSIONS)
