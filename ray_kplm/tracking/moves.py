"""Run directories that were moved or copied: MLflow stores absolute paths, which then point to another place.

A database beside the run directories goes with them: its paths are set to where it is now (`relocate`), so that what is added
lands beside it. A copy that shares the store of the original, on a server or in the same folder, is noticed (`is_copy`): the
MLflow run is the original's, and the copy gets one of its own.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ray_kplm.errors import StorageError
from ray_kplm.storage import Folder
from ray_kplm.tracking.record import ARTIFACTS, DATABASE, RECORD, Record, StoreLocation, sqlite_path

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow stores absolute paths of files."""
_LOCK_TIMEOUT_S = 60.0


def relocate(database: Path, artifacts: str) -> list[Path]:
    """Set the paths in a database to where it is now, if it was moved or copied.

    Args:
        database: the file, which exists.
        artifacts: URI of the folder of artifacts beside it.

    Returns:
        The folders in which it was before, none if it is where it was.

    Raises:
        sqlite3.Error: the file is no database, or cannot be written.
    """
    with closing(sqlite3.connect(database, timeout=_LOCK_TIMEOUT_S)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return []
        found = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        before = [uri for (uri,) in found if uri and uri != artifacts and _is_elsewhere(uri, database)]
        for uri in before:
            for table, column in _COLUMNS:
                if table in tables:
                    _replace_prefix(connection, table, column, uri, artifacts)
            if "tags" in tables:
                _replace_prefix(connection, "tags", "value", str(_path(uri).parent), str(database.parent))
    return [_path(uri).parent for uri in before]


def _is_elsewhere(uri: str, database: Path) -> bool:
    """Return whether artifacts at `uri` are those of a default database in another folder than this one."""
    if not uri.startswith("file:///") or _path(uri).name != ARTIFACTS:
        return False
    with suppress(OSError):
        return not os.path.samefile(_path(uri).parent / DATABASE, database)
    return True


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _replace_prefix(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    condition = f"{column} = ? OR substr({column}, 1, ?) = ?"
    if table == "tags":
        condition = f"key = 'run_directory' AND ({condition})"
    statement = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {condition}"  # names of ours, no input
    connection.execute(statement, (new, len(old) + 1, old, len(old) + 1, f"{old}/"))


def is_copy(record: Record, place: str, location: StoreLocation) -> bool:
    """Return whether a run directory is a copy of one that has the recorded MLflow run, in the same store.

    It is not if the original is gone, for then the directory was moved, or if the store was moved or copied along. On another
    machine nothing is known of the original: a run on a server counts as its own.

    Args:
        record: of the run directory.
        place: where the directory was when the MLflow run was created.
        location: the store.
    """
    folder = record.folder
    if place == str(folder) or (location.beside and not _is_same_store(folder, place, location)):
        return False
    if folder.is_local == ("://" in place):
        return True  # copied between a disk and an object store
    original = Folder(folder.filesystem, place.partition("://")[2] if "://" in place else place)
    if folder.is_local:
        if not os.path.isdir(place):
            return not location.beside and record["host"] not in (None, socket.gethostname())
        with suppress(OSError):
            if os.path.samefile(place, folder.path):
                return False
    try:
        return original.is_file(RECORD) and original.read_json(RECORD).get("run_id") == record["run_id"]
    except (StorageError, OSError, ValueError):
        return True  # something is there that cannot be read: nothing of it is replaced


def _is_same_store(folder: Folder, place: str, location: StoreLocation) -> bool:
    """Return whether the database beside the directory at `place` is the one beside this directory."""
    own = sqlite_path(location.uri)
    if own is None:
        return True
    there = os.path.normpath(os.path.join(place, os.path.relpath(own, folder.path)))
    if own == there:
        return True
    with suppress(OSError):
        return os.path.samefile(own, there)
    return False
