"""Faiss, imported when it is first used: the landmark detector works without it, and only training needs it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from ray_kplm.errors import ConfigError


def _load() -> ModuleType:
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        raise ConfigError(
            'the package faiss is not installed: install one of the extras cpu, gpu and gpu-cu12, as pip install ".[cpu]"'
        ) from None


class _Faiss:
    """The module `faiss`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_load(), name)


faiss = _Faiss()
