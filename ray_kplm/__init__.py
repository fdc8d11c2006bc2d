"""Landmarks from unlabelled images of one object category.

from ray_kplm import LandmarkDetector, discover, load_config

discover(load_config("faces_cpu", ["dataset=data/faces", "run=runs/faces"]))
LandmarkDetector.load("runs/faces").predict(["photo.jpg"])[0].xy
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_kplm.config import Config, load_config
    from ray_kplm.landmark_detector import LandmarkDetector, Landmarks
    from ray_kplm.pipeline import discover

__all__ = ["Config", "LandmarkDetector", "Landmarks", "__version__", "discover", "load_config"]

__version__ = "0.1.0"

_MODULES = {
    "Config": "ray_kplm.config",
    "load_config": "ray_kplm.config",
    "LandmarkDetector": "ray_kplm.landmark_detector",
    "Landmarks": "ray_kplm.landmark_detector",
    "discover": "ray_kplm.pipeline",
}
_RENAMED = {"load": "load_config"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and Ray take seconds, and `kplm --help` needs neither."""
    if name in _RENAMED:
        raise AttributeError(f"{__name__}.{name} is now {__name__}.{_RENAMED[name]}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
