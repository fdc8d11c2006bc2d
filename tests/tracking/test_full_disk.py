"""A file system that is really full: MLflow's database and copies, the queue, and other streamed files say so in one line."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.analysis.picture_file import PictureFile
from ray_kplm.config import load_config
from ray_kplm.errors import StorageError
from ray_kplm.imaging.draw import encode_png
from ray_kplm.inference.export.formats import export
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.points.layout import Layout
from ray_kplm.run import Run
from ray_kplm.storage import NO_SPACE, Folder, copy_file
from ray_kplm.tracking import add_picture, send_pending, track_run
from ray_kplm.tracking.messages import is_full

DATASET = {"name": "cats"}


@pytest.fixture
def small(tmp_path, request, monkeypatch):
    """A file system of a few MiB."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True) if os.name == "posix" else None
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() if done else os.name}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Fill the file system but for `leave` bytes."""
    file = os.open(folder / "fill", os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(file, bytes(4096))
    except OSError:
        os.ftruncate(file, max(0, os.lseek(file, 0, os.SEEK_CUR) - leave))
    finally:
        os.close(file)


def free(folder: Path) -> None:
    (folder / "fill").unlink()


def new_run(folder: Path) -> Run:
    return Run.start(load_config(None, [f"run={folder}/run"])).save()


def test_a_run_that_cannot_be_created_ends_with_the_line_of_storage(small):
    run = new_run(small)
    fill(small, 100_000)
    with pytest.raises(StorageError, match=f"mlflow.db: {NO_SPACE}") as caught:
        track_run(run, DATASET).__enter__()
    assert "\n" not in str(caught.value)


def test_copies_that_find_no_space_are_sent_when_there_is_some(small, capsys):
    run = new_run(small)
    with track_run(run, DATASET):
        pass
    capsys.readouterr()
    content = os.urandom(400_000)
    fill(small, 600_000)  # room for the queue, and not for the copy
    add_picture(run, content, "test.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert NO_SPACE in line
    assert not list(small.glob("mlartifacts/*/artifacts/evaluation/*"))
    free(small)
    send_pending(run, DATASET)
    (copy,) = small.glob("mlartifacts/*/artifacts/evaluation/test.png")
    assert copy.read_bytes() == content
    assert not run.folder.exists("tracking")


def test_a_queue_that_finds_no_space(small):
    run = new_run(small)
    with track_run(run, DATASET):
        pass
    fill(small, 10_000)
    with pytest.raises(StorageError, match=NO_SPACE):
        add_picture(run, bytes(400_000), "test.png")


def _tables(count: int = 3_000):
    row = {
        "xy": [[1.5, 2.5]] * 40,
        "confidence": [0.5] * 40,
        "probability": [0.9] * 40,
        "found": [True] * 40,
        "width": 100,
        "height": 100,
    }
    table = pa.Table.from_pylist([row | {"image_id": f"{i:09d}.jpg"} for i in range(200)], schemas.SOURCE_LANDMARKS)
    return lambda: (table for _ in range(count // 200))


WRITERS = {
    "csv": lambda folder: export(_predictions(), Folder.at(folder), ["csv"]),
    "coco": lambda folder: export(_predictions(), Folder.at(folder), ["coco"]),
    "copy": lambda folder: copy_file(Folder.at(folder.parent / "source"), Folder.at(folder), "big"),
    "picture": lambda folder: PictureFile.at(f"{folder}/new/sheet.png").write(bytes(400_000)),
    "jpeg": lambda folder: PictureFile.at(f"{folder}/sheet.jpg").write(encode_png(_noise())),
}


def _predictions() -> Predictions:
    return Predictions(_tables(), Layout.of("cats", np.full(40, schemas.NONE, np.int16)))


def _noise():
    return np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_streamed_files_end_with_the_same_line_and_leave_nothing(small, kind):
    (small.parent / "source").mkdir()
    (small.parent / "source" / "big").write_bytes(bytes(400_000))
    fill(small, 50_000)
    with pytest.raises(StorageError, match=NO_SPACE) as caught:
        WRITERS[kind](small)
    assert "\n" not in str(caught.value)
    assert [path for path in small.rglob("*") if path.is_file() and path.name != "fill"] == []


def test_which_errors_say_that_storage_is_full():
    def caused() -> Exception:
        try:
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise RuntimeError("the request failed") from error
        except RuntimeError as error:
            return error

    assert is_full(caused())
    assert is_full(OSError(122, "Disk quota exceeded"))
    assert is_full(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert not is_full(OSError(13, "Permission denied"))
    loop = RuntimeError("a")
    loop.__context__ = loop
    assert not is_full(loop)
