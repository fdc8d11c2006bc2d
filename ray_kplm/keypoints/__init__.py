"""Generic keypoints (thesis 2.5, 6.3.4): detectors, files and noisy annotation as one kind of source."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ray_kplm.config import KeypointsConfig
from ray_kplm.keypoints.aliked import Aliked
from ray_kplm.keypoints.file import FileSource
from ray_kplm.keypoints.learned import LearnedDetector, PretrainedNetwork
from ray_kplm.keypoints.noisy_gt import NoisyGroundTruth
from ray_kplm.keypoints.opencv import OpenCVDetector
from ray_kplm.keypoints.r2d2 import R2D2
from ray_kplm.keypoints.source import DetectorSource, KeypointSource
from ray_kplm.keypoints.superpoint import SuperPoint
from ray_kplm.storage import Folder

LEARNED: dict[str, Callable[[KeypointsConfig, torch.device], PretrainedNetwork]] = {
    "aliked": Aliked,
    "r2d2": R2D2,
    "superpoint": SuperPoint,
}
"""Detectors that are networks and can use a GPU."""


def build_source(config: KeypointsConfig, landmarks: Folder, seed: int) -> KeypointSource:
    """Return the configured source of keypoints.

    Args:
        config: Names the detector.
        landmarks: The split's annotation, which only `noisy_gt` reads.
        seed: Draws the noise of `noisy_gt`.

    Raises:
        ConfigError: The weights, package, file or annotation that the source needs is missing.
    """
    match config.detector:
        case "sift" | "orb":
            return DetectorSource(OpenCVDetector(config.detector, config.limit))
        case "file":
            return FileSource(config)
        case "noisy_gt":
            return NoisyGroundTruth(config, landmarks, seed)
        case name:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            return DetectorSource(LearnedDetector(LEARNED[name](config, device), config, device))
