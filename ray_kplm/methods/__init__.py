"""The generations of the method as strategy objects."""

from __future__ import annotations

from ray_kplm.config import Config
from ray_kplm.methods.base import Method
from ray_kplm.methods.kplm import Kplm
from ray_kplm.methods.merge import Merge
from ray_kplm.methods.template import Template


def build_method(config: Config) -> Method:
    """The one place that asks which generation it is."""
    match config.method.kind:
        case "kplm":
            return Kplm(config)
        case "merge":
            return Merge(config)
        case "template":
            return Template(config)
