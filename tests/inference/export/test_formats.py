"""The formats of `--to`: which there are, and what is said of those that cannot be written."""

import importlib
import importlib.util

import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.inference.export import formats
from ray_kplm.storage import Folder

EXTRAS = {name: found.extra for name, found in formats.FORMATS.items() if found.needs}


def test_every_writer_exists():
    for found in formats.FORMATS.values():
        if found.writer:
            assert callable(
                getattr(importlib.import_module(f"{formats.__package__}.{found.writer[0]}"), found.writer[1])
            )


def test_formats_that_need_packages_name_the_extra(monkeypatch):
    formats.check_formats(formats.FORMATS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert EXTRAS == {"dlc": "dlc", "slp": "sleap", "nwb": "nwb"}
    for name, extra in EXTRAS.items():
        with pytest.raises(ConfigError, match=rf'--to {name}: needs .*; pip install "ray-kplm\[{extra}\]"'):
            formats.check_formats(["csv", name])
    formats.check_formats(name for name in formats.FORMATS if name not in EXTRAS)


def test_a_word_that_is_no_format_is_refused():
    with pytest.raises(ConfigError, match="--to sql: no such format; choose from parquet, csv, coco"):
        formats.check_formats(["sql"])


def test_all_formats_of_no_picture_can_be_written(empty, tmp_path):
    assert formats.export(empty, Folder.at(tmp_path), formats.FORMATS) == []
