"""Which MLflow run tracks a run directory, and in which MLflow store that run is."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ray_kplm.errors import ConfigError
from ray_kplm.redaction import has_credentials, without_credentials
from ray_kplm.storage import Folder

RECORD = "mlflow.json"
"""Name of the record in a run directory."""
SQLITE = "sqlite:///"
"""Prefix of the tracking URI of a database file."""
_ESCAPED_SQLITE = "sqlite+pysqlite:///"
"""The same for a path with escaped characters: from `sqlite:///` MLflow (3.17) makes the folders of the escaped path, too."""
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
"""Names of the default database beside the run directories, and of the folder with its files."""
URI_VARIABLE = "MLFLOW_TRACKING_URI"


class Record:
    """The content of `<run>/mlflow.json`. Safe to update from several threads.

    Its keys, all optional:
        run_id, tracking_uri: the MLflow run and its store.
        beside: whether the store is the default database beside the run directory, which may be moved together with it.
        database: path of that database, relative to the run directory.
        place, host: where the run directory was, and on which machine, when the MLflow run was created or last taken along.
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
        self._stored: dict[str, Any] = folder.read_object(RECORD) if folder.is_file(RECORD) else {}
        self._values = dict(self._stored)
        if self._values.get("tracking_uri"):
            self._values["tracking_uri"] = without_credentials(self._values["tracking_uri"])

    def __getitem__(self, name: str) -> Any:
        """Return a value, None if it is not recorded."""
        return self._values.get(name)

    def update(self, **values: Any) -> None:
        """Set values, and write the file if any of them changed."""
        with self._lock:
            self._values |= values
            if self._values != self._stored:
                self.folder.write_json(RECORD, self._values)
                self._stored = dict(self._values)

    def adopt(self, run_id: str, location: StoreLocation, **values: Any) -> None:
        """Record that an MLflow run tracks the run directory where it is now."""
        path = sqlite_path(location.uri) if location.beside else None
        self.update(
            run_id=run_id,
            tracking_uri=location.uri,
            beside=location.beside,
            database=os.path.relpath(path, self.folder.path) if path else None,
            place=str(self.folder),
            host=socket.gethostname(),
            **values,
        )


@dataclass(frozen=True)
class StoreLocation:
    """Where an MLflow store is."""

    uri: str
    """Tracking URI."""
    artifacts: str | None = None
    """Where artifacts of new experiments go; None: the server decides."""
    beside: bool = False
    """Whether the store is the default database beside the run directory."""


def check_environment() -> None:
    """Raise ConfigError if the tracking URI of the environment holds credentials."""
    given = os.environ.get(URI_VARIABLE, "")
    if has_credentials(given):
        raise ConfigError(
            f"{URI_VARIABLE} = {given}: holds credentials, which would be written to files and logs: {_way_out(given)}"
        )


def _way_out(uri: str) -> str:
    if uri.startswith(("http://", "https://")):
        return "leave them out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
    return (
        "leave them out, and take the password file of the database (~/.pgpass, or ?read_default_file= of MySQL), or an "
        "MLflow server before it"
    )


def choose_location(folder: Folder, record: Record) -> StoreLocation:
    """Return the store that a run is to be tracked in.

    In this order: MLFLOW_TRACKING_URI; the store that the record names; a database in `folder`, or in the working directory if
    `folder` is not local. Paths are absolute, since Ray workers have another working directory.

    Raises:
        ConfigError: the tracking URI of the environment holds credentials.
    """
    check_environment()
    beside = recorded_location(folder, record) if record["beside"] else _default_location(folder)
    given = os.environ.get(URI_VARIABLE)
    if given:
        uri = _absolute(given)
        return beside if sqlite_path(uri) == sqlite_path(beside.uri) else StoreLocation(uri)
    if record["tracking_uri"] and not record["beside"] and _may_exist(record["tracking_uri"]):
        return StoreLocation(record["tracking_uri"])
    return beside


def recorded_location(folder: Folder, record: Record) -> StoreLocation:
    """Return the store that a run is tracked in already, whatever MLFLOW_TRACKING_URI says now."""
    if not record["beside"]:
        return StoreLocation(record["tracking_uri"])
    if record["database"]:
        folder = Folder.at(os.path.normpath(os.path.join(record.folder.path, record["database"], "..")))
    return _default_location(folder)


def _default_location(folder: Folder) -> StoreLocation:
    local = Path(folder.path) if folder.is_local else Path.cwd()
    return StoreLocation(sqlite_uri(str(local / DATABASE)), (local / ARTIFACTS).as_uri(), folder.is_local)


def sqlite_uri(path: str) -> str:
    """Return the tracking URI of a database file; the characters that have a meaning in a URI are escaped."""
    escaped = path.replace("%", "%25").replace("?", "%3F")
    return f"{SQLITE if escaped == path else _ESCAPED_SQLITE}{escaped}"


def sqlite_path(uri: str) -> str | None:
    """Return the path of the database file of a tracking URI, None for another kind of store."""
    for prefix in (SQLITE, _ESCAPED_SQLITE):
        if uri.startswith(prefix):
            return unquote(uri.removeprefix(prefix).partition("?")[0])
    return None


def _absolute(uri: str) -> str:
    path = uri.removeprefix(SQLITE)
    return f"{SQLITE}{os.path.abspath(path)}" if uri.startswith(SQLITE) else uri


def _may_exist(uri: str) -> bool:
    path = sqlite_path(uri)
    return path is None or os.path.exists(path)
