"""Dense features of images from models that are not trained here: HOG, ALIKED's map, vision transformers."""

from __future__ import annotations

from typing import Any

import torch

from ray_kplm.config import Config
from ray_kplm.dense_features.feature_map import DenseFeatures, describe_images, sample_maps
from ray_kplm.dense_features.hog import Hog

__all__ = ["FEATURE_NAMES", "DenseFeatures", "build_features", "describe_images", "feature_options", "sample_maps"]

_HUB_NAMES = {"dinov2": "facebook/dinov2-base"}
"""Short names of models on the Hugging Face hub; the weights of DINOv2 are Apache-2.0."""

FEATURE_NAMES = ("hog", "aliked", *_HUB_NAMES)
"""Values of `features` that are neither a folder nor a name on the hub."""


def build_features(config: Config, device: torch.device | None = None) -> DenseFeatures:
    """Return the model that `features` names.

    Args:
        config: `features` names the model; `keypoints.weights` may be ALIKED's.
        device: Where a network runs; None: the GPU if there is one.

    Raises:
        ConfigError: A package or the weights are missing.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match config.features:
        case "hog":
            return Hog()
        case "aliked":
            from ray_kplm.dense_features.aliked_map import AlikedMap  # imports all sources of keypoints

            return AlikedMap(config.keypoints, device)
        case name:
            from ray_kplm.dense_features.vision_transformer import VisionTransformer

            return VisionTransformer(_HUB_NAMES.get(name, name), device)


def feature_options(config: Config) -> dict[str, Any]:
    """Return the options that the features depend on, for the fingerprint of a step that reads them."""
    options: dict[str, Any] = {"features": config.features}
    if config.features == "aliked" and config.keypoints.weights:
        options["keypoints.weights"] = config.keypoints.weights
    return options
