"""Faiss, imported when it is first used: the landmark detector works without it, and only training needs it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from ray_kplm.extras import missing


def _load() -> ModuleType:
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        raise missing("faiss") from None


class _Faiss:
    """The module `faiss`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_load(), name)


faiss = _Faiss()
