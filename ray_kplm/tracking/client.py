"""MLflow's client: opened for a store, with timeouts, and with the paths of a database that was moved."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_kplm.tracking.file_lock import file_lock
from ray_kplm.tracking.messages import print_line
from ray_kplm.tracking.moves import relocate
from ray_kplm.tracking.record import ARTIFACTS, StoreLocation, sqlite_path


def open_client(location: StoreLocation) -> Any:
    """Return MLflow's client of a store.

    The default database is created by one process at a time. If it was moved or copied, its paths are set to where it is.
    """
    import mlflow  # takes seconds to import, and most commands do not need it

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    path = sqlite_path(location.uri)
    if not location.beside or path is None:
        return mlflow.MlflowClient(tracking_uri=location.uri)
    database = Path(path)
    database.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(database.with_name(f".{database.name}.lock")):  # the first client creates the tables
        if location.artifacts and database.exists():
            _relocate(database, location.artifacts)
        return mlflow.MlflowClient(tracking_uri=location.uri)


def _relocate(database: Path, artifacts: str) -> None:
    for before in relocate(database, artifacts):
        kept = (
            ""
            if (database.parent / ARTIFACTS).is_dir()
            else f"; files that were logged before stay in {before / ARTIFACTS}"
        )
        print_line(
            f"{database} was moved or copied here from {before}: what is logged from now on is kept in "
            f"{database.parent / ARTIFACTS}{kept}"
        )


def artifact_repository(artifacts: str) -> Any:
    """Return MLflow's access to a folder of artifacts.

    Its client (mlflow 3.17) keeps one for each run id in a process, although the run of a copied database has another folder.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(artifacts)


class _SharedEnvironment:
    """Environment variables that are set while at least one thread needs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._ours: list[str] = []

    def enter(self, variables: Mapping[str, str]) -> None:
        with self._lock:
            if not self._users:
                self._ours = [name for name in variables if name not in os.environ]
            self._users += 1
            os.environ.update({name: variables[name] for name in self._ours})

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for name in self._ours:
                    os.environ.pop(name, None)


_environment = _SharedEnvironment()


@contextmanager
def fail_fast(timeout_s: int) -> Iterator[None]:
    """Make MLflow's requests in this block fail after one attempt, take long paths, and print nothing to stdout.

    MLflow reads these settings from the environment at each request, so they are set while requests are made only. Values that
    the user has set are kept.

    Args:
        timeout_s: time to connect, and between two pieces of the response, seconds.
    """
    _environment.enter(
        {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH": "8192",  # a path in another script is three times as long when escaped
        }
    )
    try:
        yield
    finally:
        _environment.leave()
