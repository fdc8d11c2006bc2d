"""Work that dies at a boundary: run as a process, `python tests/storage/crashing.py WORK FOLDER`.

Every operation of the file system at which a file appears, changes its name, is flushed or goes away is a boundary. For each a
process is forked that ends there as by `kill -9`: without clean-up, and without what comes after. Then the folder is looked
at, and the same work is done again to its end.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image
from pyarrow import fs as pafs

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset, IngestOptions, dataset_folder
from ray_kplm.run import Run, Step
from ray_kplm.storage import Folder
from ray_kplm.storage import folder as storage
from ray_kplm.storage.integrity import CLAIM, MANIFEST, CheckedFolder

KILLED = 9
_left = [0]


def boundary() -> None:
    """End the process if as many boundaries were passed as it may pass."""
    _left[0] -= 1
    if _left[0] == 0:
        os._exit(KILLED)


class MortalFileSystem(pafs.LocalFileSystem):
    """The local file system, with boundaries."""

    def open_output_stream(self, *arguments, **options):
        boundary()
        return super().open_output_stream(*arguments, **options)

    def move(self, *arguments):
        boundary()
        super().move(*arguments)

    def delete_file(self, *arguments):
        boundary()
        super().delete_file(*arguments)

    def delete_dir(self, *arguments):
        boundary()
        super().delete_dir(*arguments)


def make_mortal() -> None:
    sync = storage._sync

    def mortal_sync(path: str) -> None:
        boundary()
        sync(path)

    storage._sync = mortal_sync
    storage.pafs.LocalFileSystem = MortalFileSystem


# -- a step of a run


def make_step(root: Path) -> None:
    step = _step(root)
    if step.manifest() is not None:
        return
    step.begin()
    step.folder.write_bytes("rule.npz", bytes(range(256)))
    for number in range(2):
        if not step.folder.is_whole(f"part-{number:05d}.parquet"):
            step.folder.write_table(f"part-{number:05d}.parquet", pa.table({"n": [number] * 50}))
    step.folder.parent.write_bytes("clusters.npz", b"centroids" * 30)
    step.finish(images=150)


def _step(root: Path) -> Step:
    folder = CheckedFolder.of(Folder.at(root / "run/rounds/000/labels"), "make it again")
    return Step(folder, "correspond", {"clusters": 3}, {"features": "f"})


def look_at_step(root: Path) -> None:
    step = _step(root)
    _look_at(step.folder, step.manifest() is not None, 4)


# -- ingest


def make_dataset(root: Path) -> None:
    from ray_kplm.steps import ingest as ingesting

    class Here:
        def __init__(self, value):
            self.get = lambda: value

    ingesting.Shared = Here
    ingesting.cluster_cpus = lambda: 1
    ingesting.run_tasks = lambda work, calls, at_most: ((i, work(*call)) for i, call in enumerate(calls))
    ingesting.ingest(root.parent / "photos", root / "data", IngestOptions(part_images=3, size=32, test_share=0.3))


def write_photos(folder: Path) -> None:
    folder.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")


def look_at_dataset(root: Path) -> None:
    folder = dataset_folder(Folder.at(root / "data"))
    finished = folder.is_file(MANIFEST)
    if finished:
        Dataset.open(folder)
    _look_at(folder, finished, 5)


# -- the configuration of a run, which is replaced


def replace_configuration(root: Path) -> None:
    for threads in (1, 2):
        Run.start(load_config(None, [f"run={root / 'run'}", f"compute.threads={threads}"])).save()


def look_at_configuration(root: Path) -> None:
    if (root / "run/config.yaml").exists():
        assert Run.open(str(root / "run")).config.compute.threads in (1, 2)
        assert yaml.safe_load((root / "run/config.yaml").read_text())["seed"] == 0


def _look_at(folder: CheckedFolder, finished: bool, files: int) -> None:
    """Nothing is torn: a manifest holds all files, and they are whole; without one, what has a name is whole."""
    if finished:
        assert len(folder._outputs(again=True)) == files
        folder.check()
        return
    for key in folder.written():
        where, name = folder.place(key)
        assert where.is_whole(name) or not where.unchecked.is_file(name)


WORKS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "step": (make_step, look_at_step),
    "dataset": (make_dataset, look_at_dataset),
    "configuration": (replace_configuration, look_at_configuration),
}


def content(root: Path) -> dict[str, str]:
    """The hashes of all files but hidden ones and claims; those of manifests without the times."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_file() and path.name != CLAIM and not any(piece.startswith(".") for piece in name.split("/")):
            lines = [
                line
                for line in path.read_bytes().split(b"\n")
                if b'"seconds"' not in line and b"sha256" not in line[:12]
            ]
            found[name] = hashlib.sha256(b"\n".join(lines)).hexdigest()
    return found


def in_process(work: Callable[[], None]) -> int:
    """Do some work in a process of its own; return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(work: str, folder: str) -> None:
    make, look = WORKS[work]
    root = Path(folder) / "work"
    write_photos(root.parent / "photos")
    root.mkdir()
    assert in_process(lambda: make(root)) == 0
    expected = content(root)
    importlib.import_module("pandas")  # which pyarrow imports at its first table: once, and not in each process
    if work == "dataset":
        importlib.import_module("ray_kplm.steps.ingest")
    boundaries, code = 0, KILLED
    while code == KILLED:
        boundaries += 1
        shutil.rmtree(root)
        root.mkdir()

        def until_killed(passed: int = boundaries) -> None:
            make_mortal()
            _left[0] = passed
            make(root)

        def look_and_continue() -> None:
            look(root)
            make(root)
            look(root)
            assert content(root) == expected, {*content(root).items()} ^ {*expected.items()}

        code = in_process(until_killed)
        assert code in (0, KILLED), f"boundary {boundaries}"
        assert in_process(look_and_continue) == 0, f"after boundary {boundaries}"
    print(boundaries - 1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
