"""`auto` landmarks and clusters: chosen once, recorded, and the same when a run continues, is forked or is swept."""

import json
from dataclasses import replace

import pytest

from ray_kplm import pipeline
from ray_kplm.cli.main import main
from ray_kplm.config import AUTO, load_config
from ray_kplm.errors import RunError
from ray_kplm.run import Run
from ray_kplm.steps import choose as module
from ray_kplm.steps.choose import CHOICE, choice_step, has_auto, resolve, resolved
from ray_kplm.steps.fork import fork
from ray_kplm.storage import Folder

AUTO_NUMBERS = ["method.landmarks=auto", "method.clusters=auto"]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "SPLITS", 3)


@pytest.fixture
def run(small_dataset, small_config, tmp_path):
    paths = [f"dataset={small_dataset.root}", f"run={tmp_path / 'run'}"]
    return Run.start(load_config(None, [*small_config, *AUTO_NUMBERS, *paths]))


def record_choice(run, dataset, **numbers):
    """Publish a choice without looking at images."""
    step = choice_step(run, dataset)
    step.begin()
    return step.finish(**numbers)


def test_the_numbers_are_chosen_with_evidence_and_recorded(run, small_dataset, quick):
    config = resolve(run, small_dataset)
    choice = run.finished(CHOICE)
    assert (config.method.landmarks, config.method.clusters) == (choice["landmarks"], choice["clusters"])
    assert choice["landmarks"] in [row["landmarks"] for row in choice["rows"]]
    assert choice["images"] == 48
    assert 2 * choice["landmarks"] <= choice["clusters"] <= 100
    assert choice["landmarks"] <= choice["points_per_image"]


def test_the_recorded_numbers_are_taken_again_without_looking_at_images(run, small_dataset, monkeypatch):
    record_choice(run, small_dataset, landmarks=7, clusters=21)
    monkeypatch.setattr(module, "choose", None)
    assert resolve(run, small_dataset).method == replace(run.config.method, landmarks=7, clusters=21)


def test_a_choice_under_another_configuration_is_an_error_that_names_the_change(run, small_dataset):
    record_choice(run, small_dataset, landmarks=7, clusters=21)
    keypoints = replace(run.config.keypoints, limit=30)
    with pytest.raises(RunError, match=r"keypoints\.limit was 20, is 30"):
        resolve(replace(run, config=replace(run.config, keypoints=keypoints)), small_dataset)


def test_clusters_alone_follow_from_the_given_landmarks(run, small_dataset, monkeypatch):
    monkeypatch.setattr(module, "measure", None)
    method = replace(run.config.method, landmarks=5)
    config = resolve(replace(run, config=replace(run.config, method=method)), small_dataset)
    assert config.method.landmarks == 5
    assert config.method.clusters >= 10
    assert "rows" not in run.finished(CHOICE)


def test_given_clusters_bound_the_landmarks(run, small_dataset, quick):
    method = replace(run.config.method, clusters=8)
    config = resolve(replace(run, config=replace(run.config, method=method)), small_dataset)
    assert config.method.clusters == 8
    assert config.method.landmarks <= 8


def test_a_run_is_recorded_with_the_numbers_and_its_fork_has_them(run, small_dataset, tmp_path):
    record_choice(run, small_dataset, landmarks=7, clusters=21)
    numbers = pipeline._choose_numbers(run, small_dataset, progress=None).save()
    assert not has_auto(Run.open(str(run.folder)).config)
    fork(numbers, replace(Run.open(str(run.folder)).config, run=str(tmp_path / "fork")))
    assert Run.open(str(tmp_path / "fork")).config.method.landmarks == 7


def test_auto_is_zero_and_numbers_replace_it(run):
    assert (run.config.method.landmarks, run.config.method.clusters) == (AUTO, AUTO)
    assert not has_auto(resolved(run.config, {"landmarks": 6, "clusters": 12}))


def test_the_command_prints_the_numbers_and_draws_the_evidence(small_dataset, small_config, tmp_path, quick, capsys):
    overrides = [value for value in small_config if not value.startswith("method.")]
    command = ["choose", str(small_dataset.root), *overrides, "--folder", str(tmp_path / "choose")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "K = " in text
    assert "method.landmarks=" in text
    assert Folder.at(tmp_path / "choose").read_bytes("choice.png").startswith(b"\x89PNG")
    assert main([*command, "--json"]) == 0
    assert f"K = {json.loads(capsys.readouterr().out)['landmarks']}," in text
    assert main([*command, "method.landmarks=9"]) == 2
    assert "is what `kplm choose` chooses" in capsys.readouterr().err
