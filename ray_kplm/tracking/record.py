"""Which MLflow run tracks a run directory, and in which MLflow store that run is."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_kplm.storage import Folder

RECORD = "mlflow.json"
"""Name of the record in a run directory."""
SQLITE = "sqlite:///"
"""Prefix of the tracking URI of a database file."""


class Record:
    """The content of `<run>/mlflow.json`. Safe to update from several threads.

    Its keys, all optional:
        run_id, tracking_uri: the MLflow run and its store.
        beside: whether the store is the default database beside the run directory, which may be moved together with it.
        parent: run id of the parent, for a run of a group.
        began: when the MLflow run was created, milliseconds since the epoch.
        status: RUNNING, FINISHED, FAILED or KILLED, as last written by a process that tracked the run.
        step: the last global iteration.
        model: fingerprint of the stage-2 step whose detector was logged as a model.
    """

    def __init__(self, folder: Folder) -> None:
        """Read the record of a run directory, empty if there is none."""
        self.folder = folder
        self._lock = threading.Lock()
        self._values: dict[str, Any] = folder.read_object(RECORD) if folder.is_file(RECORD) else {}

    def __getitem__(self, name: str) -> Any:
        """Return a value, None if it is not recorded."""
        return self._values.get(name)

    def update(self, **values: Any) -> None:
        """Set values, and write the file if any of them changed."""
        with self._lock:
            if {**self._values, **values} != self._values:
                self._values |= values
                self.folder.write_json(RECORD, self._values)


@dataclass(frozen=True)
class StoreLocation:
    """Where an MLflow store is."""

    uri: str
    """Tracking URI."""
    artifacts: str | None = None
    """Where artifacts of new experiments go; None: the server decides."""
    beside: bool = False
    """Whether the store is the default database beside the run directory."""


def choose_location(folder: Folder, record: Record) -> StoreLocation:
    """Return the store that a run is to be tracked in.

    In this order: MLFLOW_TRACKING_URI; the store that the record names; a database in `folder`, or in the working directory if
    `folder` is not local. Paths are absolute, since Ray workers have another working directory.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return StoreLocation(_absolute(given))
    if record["tracking_uri"] and not record["beside"] and _may_exist(record["tracking_uri"]):
        return StoreLocation(record["tracking_uri"])
    return _default_location(folder)


def recorded_location(folder: Folder, record: Record) -> StoreLocation:
    """Return the store that a run is tracked in already, whatever MLFLOW_TRACKING_URI says now."""
    return _default_location(folder) if record["beside"] else StoreLocation(record["tracking_uri"])


def _default_location(folder: Folder) -> StoreLocation:
    local = Path(folder.path) if folder.is_local else Path.cwd()
    return StoreLocation(f"{SQLITE}{local}/mlflow.db", (local / "mlartifacts").as_uri(), folder.is_local)


def _absolute(uri: str) -> str:
    path = uri.removeprefix(SQLITE)
    return f"{SQLITE}{os.path.abspath(path)}" if uri.startswith(SQLITE) else uri


def _may_exist(uri: str) -> bool:
    return not uri.startswith(SQLITE) or os.path.exists(uri.removeprefix(SQLITE))
