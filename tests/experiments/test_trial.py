"""Configurations of trials, whose processes work in folders of their own."""

from __future__ import annotations

from ray_kplm.config import load_config
from ray_kplm.experiments.trial import absolute


def test_local_paths_are_made_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "hog").mkdir()
    assert absolute(load_config(None, ["features=model"])).features == str(tmp_path / "model")
    for name in ("hog", "dinov2", "facebook/dinov2-base"):
        assert absolute(load_config(None, [f"features={name}"])).features == name
