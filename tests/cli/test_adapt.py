"""`kplm adapt` as a user types it, on a run whose network is untrained."""

import csv
import json

import pytest

from ray_kplm.cli.main import main
from ray_kplm.detectors.stored import export
from ray_kplm.run import Run
from tests.analysis.test_adapt import NAMES, K, made_labels


@pytest.fixture
def run(tmp_path, untrained_run) -> Run:
    return untrained_run(tmp_path, K)


@pytest.fixture
def file(tmp_path, run) -> str:
    """A CSV of labels beside its images."""
    labels = made_labels(tmp_path, run, 10)
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *(f"{name}_{axis}" for name in NAMES for axis in "xy")])
        writer.writerows(
            [image.rsplit("/", 1)[1], *xy.ravel().tolist()] for image, xy in zip(labels.images, labels.xy, strict=True)
        )
    return str(path)


def test_it_prints_a_table_and_the_next_step(run, file, capsys):
    assert main(["adapt", run.folder.path, file, "--name", "face", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("point ")
    for text in (
        *NAMES,
        "errors are cross-validated: 10 labelled objects",
        "the next 10 labels would gain",
        "--points face",
    ):
        assert text in out
    assert main(["adapt", run.folder.path, file, "--name", "face"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["adapt", run.folder.path, "--list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["sets"]] == ["face"]
    assert main(["adapt", run.folder.path, "--remove", "face"]) == 0
    assert main(["adapt", run.folder.path, "--list"]) == 0
    assert "has no points but its landmarks" in capsys.readouterr().out


def test_json_is_all_that_stdout_has(run, file, capsys):
    assert main(["-q", "adapt", run.folder.path, file, "--name", "face", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["is_new"]
    assert facts["points"] == 3
    assert facts["forecast"]["labels"] == 10
    assert facts["trials"][0]["error"] <= facts["trials"][-1]["error"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["{file}"], "--name: give the set of points a name"),
        (["{file}", "--name", "edited"], "--name edited: is taken by the landmarks themselves"),
        (["{file}", "--name", "../x"], "--name ../x: is made of letters"),
        (["--name", "face"], "adapt: name one file of labels"),
        (["gone.json", "--name", "face"], "gone.json: no such file"),
        (["{file}", "--name", "face", "--images", "gone"], "gone: no such file or folder"),
        (["{file}", "--list"], "does not go with --list"),
        (["--remove", "gone"], "--remove gone: .* has no such points"),
    ],
)
def test_wrong_words_are_refused_in_one_line(run, file, capsys, words, text):
    import re

    assert main(["adapt", run.folder.path, *(word.format(file=file) for word in words)]) in (2, 3)
    error = capsys.readouterr().err
    assert re.search(text, error)
    assert len(error.strip().splitlines()) == 1


def test_an_exported_detector_is_refused(run, file, tmp_path, capsys):
    export(run, run.folder.parent / "detector")
    for exported in (tmp_path / "detector", "model.onnx"):
        assert main(["adapt", str(exported), file, "--name", "face"]) == 4
        assert "is an exported detector; adapt its run" in capsys.readouterr().err
