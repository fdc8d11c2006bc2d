"""Landmarks from unlabelled images of one object category.

from ray_kplm import LandmarkDetector, discover, load

discover(load("faces_cpu", ["dataset=data/faces", "run=runs/faces"]))
LandmarkDetector.load("runs/faces").predict(["photo.jpg"])[0].xy
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_kplm.config import Config, load
    from ray_kplm.landmark_detector import LandmarkDetector, Landmarks
    from ray_kplm.pipeline import discover

__all__ = ["Config", "LandmarkDetector", "Landmarks", "__version__", "discover", "load"]

__version__ = "0.1.0"

_HOMES = {
    "Config": "ray_kplm.config",
    "load": "ray_kplm.config",
    "LandmarkDetector": "ray_kplm.landmark_detector",
    "Landmarks": "ray_kplm.landmark_detector",
    "discover": "ray_kplm.pipeline",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: torch and Ray take seconds, `kplm --help` needs neither."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
