"""The package PyAV, which reads and writes videos, and the kinds of files that it is asked to read."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

from ray_kplm.errors import DataError


@functools.cache
def is_installed() -> bool:
    """Return whether videos can be read on this machine."""
    return importlib.util.find_spec("av") is not None


def import_av() -> Any:
    """Return the module `av`, silent about what it finds in damaged files: that is reported by us.

    Raises:
        DataError: It is not installed.
    """
    try:
        av = importlib.import_module("av")
    except ImportError:
        raise DataError('videos need the package av; install it by `pip install "ray_kplm[video]"`') from None
    av.logging.set_level(None)
    return av
