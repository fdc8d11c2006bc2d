"""What `kplm view` refuses before it loads the network."""

import sys

import pytest

from ray_kplm.cli.main import main
from ray_kplm.detectors.stored import export
from ray_kplm.storage import Folder


@pytest.fixture(scope="module")
def run(untrained_run, tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"), 4, "dataset=nowhere")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 3, "nowhere is no finished dataset"),
        (["missing"], 3, "missing: no such file or folder"),
        ([".", "--labels", "labels.csv"], 2, "ends in .json"),
        ([".", "--points", "nose5"], 3, "--points nose5"),
        ([".", "--device", "abacus"], 2, "device 'abacus'"),
        ([".", "--split", "test"], 3, "--split test: applies to a dataset"),
        (["."], 3, "no image found"),
    ],
)
def test_what_cannot_be_shown_is_one_line(run, arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["view", run.folder.path, *arguments]) == code
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_detector_alone_needs_images_and_a_file_of_labels(run, tmp_path, capsys):
    export(run, Folder.at(tmp_path / "detector"))
    assert main(["view", str(tmp_path / "detector"), str(tmp_path)]) == 2
    assert "name IMAGES and --labels FILE" in capsys.readouterr().err


def test_labels_that_are_none_are_told_and_kept(run, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "labels.json").write_text('{"tasks": 1, "images": 5}')
    assert main(["view", run.folder.path, str(tmp_path), "--labels", str(tmp_path / "labels.json")]) == 3
    assert "is no file of COCO keypoints" in capsys.readouterr().err
    assert (tmp_path / "labels.json").read_text() == '{"tasks": 1, "images": 5}'


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_ports_that_are_none_are_refused(port, capsys):
    with pytest.raises(SystemExit):
        main(["view", "run", "--port", port])
    assert "--port" in capsys.readouterr().err


def test_there_is_no_way_to_listen_elsewhere(capsys):
    with pytest.raises(SystemExit):
        main(["view", "run", "--host", "0.0.0.0"])
    assert "unrecognized arguments: --host" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_extra(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else object())
    assert main(["view", run.folder.path]) == 2
    assert "ray-kplm[serve]" in capsys.readouterr().err
