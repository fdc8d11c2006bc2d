"""The formats of `--to`: which there are, and what is said of those that cannot be written."""

import importlib
import importlib.util

import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.inference.export import formats
from ray_kplm.storage import Folder


def test_every_writer_exists():
    for found in formats.FORMATS.values():
        if found.writer:
            assert callable(
                getattr(importlib.import_module(f"{formats.__package__}.{found.writer[0]}"), found.writer[1])
            )


def test_formats_that_need_packages_name_the_extra(monkeypatch):
    formats.check_formats(formats.FORMATS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, extra in {"dlc": "dlc", "slp": "sleap", "nwb": "sleap"}.items():
        with pytest.raises(
            ConfigError, match=rf'is not installed: the extra {extra} brings it, as pip install "ray-kplm\[{extra}\]"'
        ):
            formats.check_formats(["csv", name])
    formats.check_formats(["parquet", "csv", "coco", "yolo", "labelstudio"])


def test_a_word_that_is_no_format_is_refused():
    with pytest.raises(ConfigError, match="--to sql: no such format; choose from parquet, csv, coco"):
        formats.check_formats(["sql"])


def test_all_formats_of_no_picture_can_be_written(empty, tmp_path):
    assert formats.export(empty, Folder.at(tmp_path), formats.FORMATS) == []
