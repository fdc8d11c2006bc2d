"""What a command can tell in a moment: whether its configuration, its input and its target are usable.

Commands ask this before they import PyTorch and start Ray, which takes many seconds.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray_kplm.errors import ConfigError, DataError, StorageError
from ray_kplm.extras import check_installed
from ray_kplm.redaction import has_credentials

if TYPE_CHECKING:
    from ray_kplm.config import Config
    from ray_kplm.datasets.dataset import Dataset
    from ray_kplm.run import Run

EXPORTED = "channels.json"
"""The file that only an exported detector has at the top of its folder: `methods.channels.CHANNELS`, which imports PyTorch."""
_NEEDED = ("torch", "ray", "faiss", "albumentations", "scipy", "networkx")
"""Modules that training cannot do without."""


def finished_run(uri: str) -> Run:
    """Return a finished run. Raises RunError if it is none."""
    from ray_kplm.run import Run

    run = Run.open(uri)
    run.finished("stage2")
    return run


def detector(uri: str) -> Run:
    """Return a finished run, or a folder or file that holds a detector. Raises RunError if it is none of these."""
    from ray_kplm.detectors.loading import file_form
    from ray_kplm.detectors.pretrained_config import is_pretrained, open_detector

    if file_form(uri):
        from ray_kplm.detectors.file_run import file_run

        return file_run(uri)
    run = open_detector(uri)
    return run if run.folder.is_file(EXPORTED) or is_pretrained(run.folder) else finished_run(uri)


def points(run: Run, name: str | None) -> None:
    """Raise DataError if a run has no set of points of this name. Of exported detectors it is known once they are loaded."""
    from ray_kplm.points.stored import chosen_name

    if name is not None and run.folder.is_file("config.yaml") and not run.folder.is_file(EXPORTED):
        chosen_name(run.folder, name)


def dataset_of(run: Run, other: str | None = None) -> Dataset:
    """Return the dataset of a run, or another one. Raises DataError if it is not finished."""
    from ray_kplm.datasets.dataset import Dataset

    return Dataset.open(other or run.config.dataset)


def training(config: Config, *, is_run: bool = True) -> None:
    """Check what training takes, and where it writes.

    Args:
        config: of the run.
        is_run: whether `config.run` is a run directory, and not the folder of several.

    Raises:
        KplmError: the dataset is not finished, the run directory cannot be written, or a package is missing.
    """
    from ray_kplm.datasets.dataset import Dataset
    from ray_kplm.run import Run

    if has_credentials(os.environ.get("MLFLOW_TRACKING_URI", "")):
        from ray_kplm.tracking import check_environment

        check_environment()  # says the way out
    if not config.dataset:
        raise ConfigError("dataset = '': name the dataset that `kplm ingest` made, for example dataset=data/mine")
    Dataset.open(config.dataset)
    if config.run:
        target(config.run, "run")
    if is_run:
        Run.start(config)
    check_installed(*_NEEDED)


def source(uri: str, *tables: str | None) -> None:
    """Raise DataError if a source of images, or a table about them, does not exist."""
    from ray_kplm.storage import Folder

    for path in (uri, *filter(None, tables)):
        if not Folder.at(path).exists():
            raise DataError(f"{path}: no such file or folder")


def sources(uris: Sequence[str], *tables: str | None) -> None:
    """Raise DataError if none of several sources of images exists, or a table about them does not. Patterns match later."""
    from ray_kplm.storage import Folder

    if len(uris) == 1 and not glob.has_magic(uris[0]):
        source(uris[0], *tables)
        return
    if not any(glob.has_magic(uri) or Folder.at(uri).exists() for uri in uris):
        raise DataError(f"{', '.join(uris[:3])}{', ...' if len(uris) > 3 else ''}: no such files or folders")
    for path in filter(None, tables):
        source(path)


def target(uri: str, name: str) -> None:
    """Check that a folder can be made or written to, and that it stays.

    Args:
        uri: the folder.
        name: what it is, for messages.

    Raises:
        ConfigError: it lies in the copy of a folder that Ray deletes after the job.
        StorageError: a file is in its way, or it is not writable.
    """
    from ray_kplm.job_copy import refuse_lost
    from ray_kplm.storage import Folder

    refuse_lost(uri, name)
    folder = Folder.at(uri)
    if not folder.is_local:
        return
    path = folder.path
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        raise StorageError(f"{name} {uri}: {path} is a file, and not a folder to write to; choose another place")
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"{name} {uri}: {path} is not writable; check who may write there, or choose another place")


def target_file(path: str | None, run: str, name: str = "--out") -> None:
    """Check that a file, by default one in the run, can be written; see `target` for the errors."""
    if path is None:
        return target(run, "RUN")
    if os.path.isdir(path):
        raise StorageError(f"{name} {path}: is a folder; give the name of a file")
    if "://" not in path:
        target(os.path.dirname(os.path.abspath(path)), name)


def file_name(path: str, suffix: str) -> None:
    """Raise ConfigError if the name of a file to write does not end in `suffix`."""
    if not path.lower().endswith(suffix):
        raise ConfigError(f"{path}: the name of such a file ends in {suffix}; name it so")
