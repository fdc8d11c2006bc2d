"""Pictures, and a reader of files that lie beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ray_kplm.labels.labels import Labels
from ray_kplm.labels.reading import read_labels

SIZE = (64, 48)


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Write a picture below `tmp_path`."""

    def write(name: str, size: tuple[int, int] = SIZE, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 30)).save(path, **options)
        return path

    return write


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Labels]:
    """Write a file of annotations, a text or a JSON value, and read it."""

    def write_and_read(content: Any, name: str = "labels.any", **options: Any) -> Labels:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_labels(path, **options)

    return write_and_read
