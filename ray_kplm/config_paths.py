"""Paths in the configuration of a run directory: they hold for the place where the run was begun.

A run directory that was moved or copied has the configuration of that place. The run is then the directory itself, and the
dataset, if it is not where it was, is looked for where it lies relative to the run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CONFIG, _BESIDE = "config.yaml", "versions.json"
"""Names of files in a run directory."""


def of_run_directory(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a configuration as it holds where its file lies, if the file is that of a run directory.

    Args:
        path: the file.
        tree: what it holds.

    Returns:
        The configuration, and what to tell the user of a changed run directory, empty if there is nothing.
    """
    file = Path(os.path.abspath(path))
    if file.name != _CONFIG or not (file.parent / _BESIDE).is_file() or not _is_local(tree.get("run")):
        return dict(tree), ""
    folder = os.path.dirname(path) or "."
    if _is_same(str(tree["run"]), folder):
        return dict(tree), ""
    moved = with_dataset_at(folder, tree) | {"run": folder}
    return moved, f"{path}: is of the run directory {folder}, which is continued; it was at {tree['run']} before"


def with_dataset_at(folder: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with the dataset that lies beside the run as before, if it is not at its path any more."""
    dataset, run = tree.get("dataset"), tree.get("run")
    if not _is_local(dataset) or not _is_local(run) or os.path.exists(str(dataset)):
        return dict(tree)
    if os.path.isabs(str(dataset)) != os.path.isabs(str(run)):
        return dict(tree)
    candidate = os.path.normpath(os.path.join(folder, os.path.relpath(str(dataset), str(run))))
    return dict(tree) | ({"dataset": candidate} if os.path.exists(candidate) else {})


def _is_local(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "://" not in value


def _is_same(run: str, folder: str) -> bool:
    if os.path.abspath(os.path.expanduser(run)) == os.path.abspath(folder):
        return True
    return os.path.exists(run) and os.path.samefile(run, folder)
