"""The package PyAV, which reads and writes videos."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

from ray_kplm.extras import check_installed


@functools.cache
def is_installed() -> bool:
    """Return whether videos can be read on this machine."""
    return importlib.util.find_spec("av") is not None


def import_av() -> Any:
    """Return the module `av`, silent about what it finds in damaged files: that is reported by us.

    Raises:
        ConfigError: It is not installed.
    """
    check_installed("av")
    av = importlib.import_module("av")
    av.logging.set_level(None)
    return av
