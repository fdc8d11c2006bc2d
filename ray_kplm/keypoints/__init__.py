"""Generic keypoint detectors behind one call."""

from __future__ import annotations

from ray_kplm.config import KeypointsConfig
from ray_kplm.keypoints.base import Detector
from ray_kplm.keypoints.opencv import OpenCVDetector


def build_detector(config: KeypointsConfig) -> Detector:
    """The configured detector."""
    match config.detector:
        case "sift" | "orb":
            return OpenCVDetector(config.detector, config.limit)
