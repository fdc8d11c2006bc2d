"""What fingerprints hold of a configuration: the content of files, not their place, and nothing of what is off."""

from __future__ import annotations

from types import SimpleNamespace

import albumentations as A
import pytest

from ray_kplm.config import load_config
from ray_kplm.errors import ConfigError
from ray_kplm.methods import build_method
from ray_kplm.run import Run
from ray_kplm.steps.context import RunContext


def reads(tmp_path, *changes: str) -> dict:
    config = load_config(None, [f"run={tmp_path / 'run'}", *changes])
    dataset = SimpleNamespace(fingerprint="d")
    return RunContext(Run.start(config), dataset, build_method(config)).training_reads()


def test_the_users_transforms_count_by_their_content(tmp_path):
    assert "extra" not in reads(tmp_path)["augment"], "runs from before the key would be trained again"
    for name, p in (("a", 0.5), ("copy", 0.5), ("b", 0.6)):
        A.save(A.Compose([A.CLAHE(p=p)]), tmp_path / f"{name}.json")
    extra = {name: reads(tmp_path, f"augment.extra={tmp_path}/{name}.json")["augment"]["extra"] for name in "ab"}
    assert extra["a"] != extra["b"]
    assert reads(tmp_path, f"augment.extra={tmp_path}/copy.json")["augment"]["extra"] == extra["a"]
    with pytest.raises(ConfigError, match=r"augment.extra = '.*gone.json': cannot be read"):
        reads(tmp_path, f"augment.extra={tmp_path}/gone.json")


def test_workers_get_the_absolute_path_of_the_users_transforms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.start(load_config(None, ["run=run", "augment.extra=mine.json"]))
    assert run.resolved.augment.extra == str(tmp_path / "mine.json")
    assert run.config.augment.extra == "mine.json"
