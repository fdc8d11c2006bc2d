"""The methods, one module each, and their parts: objectives, data plans, labels, predictors. No Ray, no MLflow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ray_kplm.config import Config

if TYPE_CHECKING:
    from ray_kplm.methods.base import Method


def build_method(config: Config) -> Method:
    """Return the method of `method.kind`, which is the name of its module in this package."""
    method: Method = importlib.import_module(f"ray_kplm.methods.{config.method.kind}").build(config)
    return method
