"""Generic keypoints behind one call."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ray_kplm.config import KeypointsConfig
from ray_kplm.keypoints.aliked import Aliked
from ray_kplm.keypoints.given import FromFile, TruthMix
from ray_kplm.keypoints.learned import LearnedDetector, Network
from ray_kplm.keypoints.opencv import OpenCVDetector
from ray_kplm.keypoints.r2d2 import R2D2
from ray_kplm.keypoints.source import FromImages, Source
from ray_kplm.keypoints.superpoint import SuperPoint
from ray_kplm.storage import Folder

LEARNED: dict[str, Callable[[KeypointsConfig, torch.device], Network]] = {
    "aliked": Aliked,
    "r2d2": R2D2,
    "superpoint": SuperPoint,
}
"""Detectors that are networks and can use a GPU."""


def build_source(config: KeypointsConfig, landmarks: Folder, seed: int) -> Source:
    """The configured source of keypoints. `landmarks`: the split's annotation, which only `noisy_gt` reads.

    Raises ConfigError if what it needs (weights, a package, a file, annotation) is not there.
    """
    match config.detector:
        case "sift" | "orb":
            return FromImages(OpenCVDetector(config.detector, config.limit))
        case "file":
            return FromFile(config)
        case "noisy_gt":
            return TruthMix(config, landmarks, seed)
        case name:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            return FromImages(LearnedDetector(LEARNED[name](config, device), config, device))
