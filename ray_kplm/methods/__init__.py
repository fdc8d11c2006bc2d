"""The generations of the method as strategy objects."""

from __future__ import annotations

from ray_kplm.config import Config
from ray_kplm.methods.kplm import Kplm


def build_method(config: Config) -> Kplm:
    """The one place that asks which generation it is."""
    match config.method.kind:
        case "kplm":
            return Kplm(config)
