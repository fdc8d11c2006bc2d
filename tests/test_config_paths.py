"""The configuration of a run directory that was moved or copied continues this directory."""

import os
from pathlib import Path

import pytest
import yaml

from ray_kplm.config import load_config
from ray_kplm.config_paths import with_dataset_at
from ray_kplm.run import Run


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Folder `home` with a dataset and a run, by relative paths as one types them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "data").mkdir(parents=True)
    Run.start(load_config(None, ["dataset=home/data", "run=home/runs/mine"])).save()
    return tmp_path / "home"


def test_a_run_directory_where_it_was_is_as_it_was_written(home, capsys):
    for path in ("home/runs/mine/config.yaml", home / "runs/mine/config.yaml", "./home/../home/runs/mine/config.yaml"):
        config = load_config(path)
        assert (config.dataset, config.run) == ("home/data", "home/runs/mine")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("original", ["stays", "is gone"])
def test_a_copy_continues_itself_and_not_the_original(home, tmp_path, original, capsys):
    copy = tmp_path / "copies" / "home"
    (copy / "runs" / "mine").mkdir(parents=True)
    (copy / "data").mkdir()
    for name in ("config.yaml", "versions.json"):
        (copy / "runs" / "mine" / name).write_bytes((home / "runs" / "mine" / name).read_bytes())
    if original == "is gone":
        home.rename(tmp_path / "other")
    config = load_config("copies/home/runs/mine/config.yaml")
    assert os.path.samefile(config.run, copy / "runs" / "mine")
    assert os.path.samefile(config.dataset, home / "data" if original == "stays" else copy / "data")
    (line,) = capsys.readouterr().err.splitlines()
    assert "is of the run directory copies/home/runs/mine" in line
    assert "home/runs/mine before" in line
    assert os.path.samefile(Run.open("copies/home/runs/mine").config.dataset, config.dataset)


def test_an_override_and_another_working_directory(home, tmp_path, monkeypatch, capsys):
    assert load_config("home/runs/mine/config.yaml", ["run=new"]).run == "new"
    monkeypatch.chdir(home / "runs")
    config = load_config("mine/config.yaml")
    assert (config.run, config.dataset) == ("mine", "../data")
    assert os.path.samefile(config.dataset, home / "data")
    capsys.readouterr()
    assert load_config("mine/config.yaml", ["run=new"]).run == "new"
    assert capsys.readouterr().err == ""


def test_other_configuration_files_are_as_they_are(home, tmp_path):
    tree = yaml.safe_load((home / "runs/mine/config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))  # in no run directory
    assert load_config("config.yaml").run == "home/runs/mine"
    (home / "runs/mine/best.yaml").write_text(yaml.safe_dump(tree | {"run": "elsewhere"}))
    assert load_config("home/runs/mine/best.yaml").run == "elsewhere"


NO_PLACE = [
    ("s3://bucket/data", "runs/mine"),
    ("data", "s3://bucket/run"),
    ("/data", "runs/mine"),
    ("", "runs"),
    (None, None),
]


@pytest.mark.parametrize(("dataset", "run"), NO_PLACE)
def test_what_has_no_place_beside_the_run_stays(dataset, run, tmp_path):
    tree = {"dataset": dataset, "run": run}
    assert with_dataset_at(str(tmp_path), tree) == tree
