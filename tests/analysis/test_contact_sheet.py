"""`kplm show` and `kplm template` with --out: one file, in the format of its name, and nothing else."""

import io
import os

import numpy as np
import pytest
import ray
from PIL import Image

from ray_kplm.analysis.contact_sheet import draw_sheet, seen_well, show
from ray_kplm.analysis.picture_file import FORMATS, PictureFile
from ray_kplm.analysis.predictions import landmarks_of, stored_landmarks_of
from ray_kplm.cli.main import main
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError, StorageError
from ray_kplm.imaging.draw import HOLLOW_BELOW, encode_png
from ray_kplm.inference import dataset as inference
from ray_kplm.inference.dataset import SplitLandmarks
from ray_kplm.run import Run
from ray_kplm.storage.file_content import seal

COUNTS = {"train": 5, "test": 7}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))


@pytest.fixture
def run(noise_run) -> Run:
    return noise_run


@pytest.fixture
def stored(run, monkeypatch) -> Run:
    """The same run with its landmarks on storage, predicted in this process."""

    def in_process(kind, arguments, selection, pool, progress):
        worker = kind(**arguments)
        return [worker(part, rows) for part, rows in zip(selection.parts, selection.rows, strict=True)]

    with monkeypatch.context() as patched:
        patched.setattr(inference, "map_parts", in_process)
        landmarks_of(run, Dataset.open(run.config.dataset), "test")
    return run


def snapshot(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("suffix", "kind"), FORMATS.items())
def test_the_file_is_in_the_format_of_its_name_and_nothing_else_is_written(run, tmp_path, suffix, kind, capsys):
    before = snapshot(tmp_path)
    out = tmp_path / "new folder" / "a%20b" / f"sheet.v2{suffix.upper()}"
    assert main(["show", str(run.folder), "--count", "3", "--tile", "64", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    after = snapshot(tmp_path)
    content = after.pop(str(out))
    assert after == before
    if kind == "PDF":
        assert content.startswith(b"%PDF")
    else:
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == kind
            assert picture.width == 3 * 64


def test_landmarks_that_are_stored_are_drawn_and_those_that_are_not_are_predicted(stored, tmp_path):
    dataset = Dataset.open(stored.config.dataset)
    assert stored_landmarks_of(stored, dataset, "train") is None
    assert stored_landmarks_of(stored, dataset, "test") is not None
    without = draw_sheet(stored, count=7, tile=64)
    assert not stored.folder.is_file("evaluation/test.png")
    assert without == show(stored, count=7, tile=64)
    assert stored.folder.read_bytes("evaluation/test.png") == without
    (stored.folder / "evaluation" / "stage2").delete()
    assert draw_sheet(stored, count=7, tile=64) == without
    assert not stored.folder.exists("evaluation/stage2")


def test_a_result_of_another_network_is_neither_drawn_nor_deleted(stored):
    network = stored.folder / "stage2"
    network.write_json("manifest.json", seal(network.read_json("manifest.json") | {"fingerprint": "another"}))
    before = snapshot_of(stored)
    draw_sheet(stored, count=2, tile=64)
    assert snapshot_of(stored) == before


def snapshot_of(run: Run) -> dict[str, bytes]:
    return {name: run.folder.read_bytes(name) for name in run.folder.walk()}


@pytest.mark.parametrize("given", ["sheet", "sheet.xyz", "sheet.png.txt", "folder.", ".png", "sheet.mp4"])
def test_a_name_without_a_known_format_is_refused_before_any_work(given, tmp_path, capsys):
    assert main(["show", f"{tmp_path}/missing", "--out", f"{tmp_path}/{given}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"end it in one of {', '.join(FORMATS)}")


def test_a_place_that_cannot_be_written_is_one_line(run, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    places = {
        f"{tmp_path}/file/sheet.png": "is a file, and not a folder to write to",
        f"{tmp_path}/folder.png": "is a folder; name a file in it",
    }
    for place, text in places.items():
        assert main(["show", str(run.folder), "--count", "2", "--out", place]) in (2, 4)
        (line,) = capsys.readouterr().err.splitlines()
        assert text in line
    assert os.listdir(tmp_path / "folder.png") == []


def test_a_picture_that_a_format_cannot_hold_is_one_line(tmp_path):
    wide = encode_png(np.zeros((8, 20_000, 3), np.uint8))
    with pytest.raises(ConfigError, match="WEBP does not hold 20000 x 8 pixels"):
        PictureFile.at(f"{tmp_path}/sheet.webp").write(wide)
    assert list(tmp_path.iterdir()) == []
    PictureFile.at(f"{tmp_path}/sheet.png").write(wide)
    with pytest.raises(StorageError):
        PictureFile.at(f"{tmp_path}/sheet.png/sheet.png").write(wide)


@pytest.mark.parametrize("option", [["--count", "0"], ["--count", "-1"], ["--tile", "0"]])
def test_sizes_without_meaning_are_one_line(run, tmp_path, option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["show", str(run.folder), *option, "--out", f"{tmp_path}/a.png"])
    *_, line = capsys.readouterr().err.splitlines()
    assert f"argument {option[0]}: " in line
    assert f"{option[1]}" in line


def test_landmarks_that_are_not_found_are_drawn_hollow_and_without_probabilities_those_of_low_confidence():
    xy = np.zeros((3, 2, 2), np.float32)
    xy[2, 1] = np.nan
    confidence = np.array([[0.8, 0.2], [0.8, 0.4], [0.1, 0.4]], np.float32)
    probability = np.array([[0.9, 0.49], [0.5, 0.51], [0.6, 0.9]], np.float32)
    well = seen_well(SplitLandmarks(xy, confidence, probability))
    assert (well < HOLLOW_BELOW).tolist() == [[False, True], [False, False], [False, True]]
    well = seen_well(SplitLandmarks(xy, confidence, np.full((3, 2), np.nan, np.float32)))
    assert (well < HOLLOW_BELOW).tolist() == [[False, False], [False, False], [True, False]]
