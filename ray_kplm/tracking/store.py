"""Requests to MLflow: its client with timeouts, and one MLflow run as seen through it. Every request may block or fail."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_kplm.storage import Folder
from ray_kplm.tracking.record import SQLITE, Record, StoreLocation
from ray_kplm.tracking.spool import FACTS, Point

PARENT_TAG = "mlflow.parentRunId"
"""MLflow's tag for the parent of a run."""
_TIMEOUT_S, _UPLOAD_TIMEOUT_S = 5, 60
"""Timeouts of a request: to connect, and between two pieces of the response."""
_PARAMETERS_PER_REQUEST, _PARAMETER_LENGTH, _NAME_LENGTH = 100, 6_000, 250
"""MLflow's limits."""
_NOT_BY_ITERATION = ("system/", "evaluation/")
"""Prefixes of curves whose step is not the global iteration."""


@dataclass(frozen=True)
class RunIdentity:
    """What an MLflow run is created with."""

    experiment: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class RunDeletedError(Exception):
    """The MLflow run was deleted in its store and must not be created again."""


class MlflowRun:
    """One MLflow run, found by the record of a run directory or created. Not safe for use by several threads at once."""

    def __init__(self, record: Record, location: StoreLocation, identity: RunIdentity | None) -> None:
        """Make the handle; nothing is requested before `connect`.

        Args:
            record: the record of the run directory.
            location: the store.
            identity: with it the run is created when it does not exist, and set to RUNNING. None: for a run that has ended, to
                which something is added.
        """
        self._record, self._location, self._identity = record, location, identity
        self._client: Any = None
        self._experiment_id = ""
        self._connected = False
        self._last: dict[str, tuple[int, float]] = {}  # metric -> its last step in the store, and the value there

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return self._location.uri

    @property
    def began(self) -> int | None:
        """When the MLflow run was created, milliseconds since the epoch; None before that."""
        began: int | None = self._record["began"]
        return began

    @property
    def last_step(self) -> int:
        """The last global iteration in the store; 0 if it has none or was not reached."""
        steps = (step for name, (step, _) in self._last.items() if not name.startswith(_NOT_BY_ITERATION))
        return max(steps, default=0)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, empty before it is created in this store."""
        is_here = self._record["tracking_uri"] == self.uri or (self._location.beside and self._record["beside"])
        return str(self._record["run_id"]) if is_here and self._record["run_id"] else ""

    def connect(self) -> None:
        """Find or create the run, and read the last step of each of its metrics. No request is made while connected.

        Raises:
            RunDeletedError: the run does not exist any more and there is no identity to create it with.
        """
        if self._connected:
            return
        with fail_fast(_TIMEOUT_S):
            self._client = self._client or open_client(self._location)
            run = self._find() or self._create()
            self._last = {m.key: (m.step, m.value) for m in run.data.to_proto().metrics}
            self._experiment_id = run.info.experiment_id
            if self._identity:
                self._complete(run, self._identity)
        self._connected = True

    def disconnect(self) -> None:
        """Make the next `connect` read the run again: after a failed request it is not known what the store received."""
        self._connected = False

    def _find(self) -> Any:
        """Return the recorded run, None if the store does not have it or it was deleted."""
        from mlflow.exceptions import MlflowException

        if not self.run_id:
            return None
        try:
            run = self._client.get_run(self.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _create(self) -> Any:
        if self._identity is None:
            raise RunDeletedError(f"MLflow run {self.run_id} is no longer at {self.uri}")
        folder = self._record.folder
        tags = {"run_directory": str(folder), **self._identity.tags}
        experiment_id = self._find_or_create_experiment(self._identity.experiment)
        run = self._client.create_run(experiment_id, run_name=folder.name, tags=tags)
        self._record.update(
            run_id=run.info.run_id, tracking_uri=self.uri, beside=self._location.beside, began=run.info.start_time
        )
        return run

    def _find_or_create_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, self._location.artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process created it since the request above
                    raise
                experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id)

    def _complete(self, run: Any, identity: RunIdentity) -> None:
        """Log the parameters that the run does not have yet, and set its status to RUNNING."""
        from mlflow.entities import Param

        missing = [
            Param(name[:_NAME_LENGTH], str(value)[:_PARAMETER_LENGTH])
            for name, value in identity.parameters.items()
            if name[:_NAME_LENGTH] not in run.data.params
        ]
        for start in range(0, len(missing), _PARAMETERS_PER_REQUEST):
            self._client.log_batch(run.info.run_id, params=missing[start : start + _PARAMETERS_PER_REQUEST])
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Log the points that are new: those after the metric's last step, and replacements of the value at that step.

        So there is no second point at a step when a resumed training step repeats iterations after its checkpoint, or when a
        request arrived although it failed.
        """
        from mlflow.entities import Metric

        last, new = dict(self._last), []
        for name, value, step, time, replaces in points:
            last_step, last_value = last.get(name, (-1, float("nan")))
            if step > last_step or (replaces and step == last_step and value != last_value):
                new.append(Metric(name, value, time, step))
                last[name] = (step, value)
        if new:
            with fail_fast(_TIMEOUT_S):
                self._client.log_batch(self.run_id, metrics=new)
        self._last = last

    def log_file(self, path: str, content: bytes) -> None:
        """Log an artifact by its path in the MLflow run; an existing one is replaced."""
        parent, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as folder, fail_fast(_UPLOAD_TIMEOUT_S):
            (Path(folder) / name).write_bytes(content)
            self._client.log_artifact(self.run_id, str(Path(folder) / name), parent or None)

    def log_model(self, exported: Folder, save_facts: Callable[[dict[str, Any]], None]) -> None:
        """Log an exported detector as a model; nothing happens if it is logged already.

        Args:
            exported: a folder that `model.export_model` wrote.
            save_facts: writes the facts of `exported` again, with MLflow's id of the model, so that another attempt after a
                failure does not create a second one.
        """
        from mlflow.entities import LoggedModelOutput

        from ray_kplm.tracking.model import build_model

        facts = exported.read_json(FACTS)
        if self._record["model"] == facts["fingerprint"]:
            return
        with tempfile.TemporaryDirectory() as folder, fail_fast(_UPLOAD_TIMEOUT_S):
            if "model_id" not in facts:  # otherwise an earlier attempt failed after this point
                tags = {"stage2": facts["fingerprint"]}
                created = self._client.create_logged_model(self._experiment_id, facts["name"], self.run_id, tags)
                facts["model_id"] = created.model_id
                save_facts(facts)
            build_model(exported, Path(folder) / "model", self.run_id, facts["model_id"])
            self._client.log_model_artifacts(facts["model_id"], str(Path(folder) / "model"))
            self._client.finalize_logged_model(facts["model_id"], "READY")
            self._client.log_outputs(self.run_id, [LoggedModelOutput(facts["model_id"], facts["step"])])
        self._record.update(model=facts["fingerprint"])

    def set_terminated(self, status: str, time: int) -> None:
        """Set the final status of the run, and KILLED for children that are still RUNNING: they were stopped with it.

        Args:
            status: FINISHED, FAILED or KILLED.
            time: when the run ended, milliseconds since the epoch.
        """
        with fail_fast(_TIMEOUT_S):
            running = f"tags.`{PARENT_TAG}` = '{self.run_id}' and attributes.status = 'RUNNING'"
            for child in self._client.search_runs([self._experiment_id], running):
                self._client.set_terminated(child.info.run_id, "KILLED", time)
            self._client.set_terminated(self.run_id, status, time)


def open_client(location: StoreLocation) -> Any:
    """Return MLflow's client of a store. The default database is created by one process at a time."""
    import mlflow  # takes seconds to import, and most commands do not need it

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if not location.beside:
        return mlflow.MlflowClient(tracking_uri=location.uri)
    database = Path(location.uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with _file_lock(database.with_name(f".{database.name}.lock")):  # the first client creates the tables
        return mlflow.MlflowClient(tracking_uri=location.uri)


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, against other processes of this machine, if the file system has locks."""
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    """Make MLflow's requests in this block fail after one attempt, and print nothing to stdout.

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
        }
    )
    try:
        yield
    finally:
        _environment.leave()
