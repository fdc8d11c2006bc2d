"""Where the store is, and the MLflow run of a run directory in it. Every call here may wait for a server, and may fail."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_kplm.storage import Folder
from ray_kplm.tracking.limits import fail_fast
from ray_kplm.tracking.record import Record
from ray_kplm.tracking.spool import Point

_SQLITE = "sqlite:///"
_TIMEOUT_S, _UPLOAD_TIMEOUT_S = 5, 60
"""Of a request, to connect and between two pieces of the answer."""
_PARAMETERS_AT_ONCE, _PARAMETER_LENGTH, _NAME_LENGTH = 100, 6_000, 250
"""MLflow's limits."""
PARENT_TAG = "mlflow.parentRunId"
_BESIDES = ("system/", "evaluation/")
"""Curves that are not over the iterations."""


@dataclass(frozen=True)
class Place:
    """A tracking URI; the folder of artifacts where we choose it, None: the server does; beside: it is our own database."""

    uri: str
    artifacts: str | None = None
    beside: bool = False


def choose(folder: Folder, record: Record) -> Place:
    """MLFLOW_TRACKING_URI; else where the run is already; else a database in the folder, or, if that is not local, in the
    working directory. Absolute: workers have another working directory."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return Place(_absolute(given))
    if record["tracking_uri"] and not record["beside"] and _may_exist(record["tracking_uri"]):
        return Place(record["tracking_uri"])
    return _beside(folder)


def recorded(folder: Folder, record: Record) -> Place:
    """Where a run is already, whatever the environment says now."""
    return _beside(folder) if record["beside"] else Place(record["tracking_uri"])


def _beside(folder: Folder) -> Place:
    local = Path(folder.path) if folder.is_local else Path.cwd()
    return Place(f"{_SQLITE}{local}/mlflow.db", (local / "mlartifacts").as_uri(), folder.is_local)


def _absolute(uri: str) -> str:
    path = uri.removeprefix(_SQLITE)
    return f"{_SQLITE}{os.path.abspath(path)}" if uri.startswith(_SQLITE) else uri


def _may_exist(uri: str) -> bool:
    return not uri.startswith(_SQLITE) or os.path.exists(uri.removeprefix(_SQLITE))


@dataclass(frozen=True)
class Identity:
    """What an MLflow run is made with."""

    experiment: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class RunDeletedError(Exception):
    """The MLflow run was deleted, and is not to be made again."""


class Store:
    """One MLflow run: found again by the folder's record, or made. One thread at a time."""

    def __init__(self, record: Record, place: Place, identity: Identity | None) -> None:
        """identity: of a run that goes on, made where it is not there; None: of one that ended, to which something is added."""
        self._record, self._place, self._identity = record, place, identity
        self._client: Any = None
        self._experiment = ""
        self._connected = False
        self._stored: dict[str, tuple[int, float]] = {}

    @property
    def uri(self) -> str:
        return self._place.uri

    @property
    def began(self) -> int | None:
        """When the MLflow run was made, ms since the epoch; None before."""
        return self._record["began"]

    @property
    def last_step(self) -> int:
        """The last global iteration that the store has, 0 where it has none or is away."""
        training = (step for name, (step, _) in self._stored.items() if not name.startswith(_BESIDES))
        return max(training, default=0)

    @property
    def run_id(self) -> str:
        """Empty before the run was made."""
        known = self._record["tracking_uri"] == self._place.uri or (self._place.beside and self._record["beside"])
        return str(self._record["run_id"]) if known and self._record["run_id"] else ""

    def connect(self) -> None:
        """Find the run, or make it; learn how far its curves go. Quick when nothing has failed since."""
        if self._connected:
            return
        with fail_fast(_TIMEOUT_S):
            self._client = self._client or open_client(self._place)
            run = self._find() or self._make()
            self._stored = {m.key: (m.step, m.value) for m in run.data.to_proto().metrics}
            self._experiment = run.info.experiment_id
            if self._identity:
                self._complete(run)
        self._connected = True

    def lost(self) -> None:
        """After a failure: what arrived of the last request is not known."""
        self._connected = False

    def _find(self) -> Any:
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

    def _make(self) -> Any:
        if self._identity is None:
            raise RunDeletedError(f"MLflow run {self.run_id} is not at {self._place.uri} any more")
        folder = self._record.folder
        tags = {"run_directory": str(folder), **self._identity.tags}
        run = self._client.create_run(self._find_experiment(self._identity.experiment), run_name=folder.name, tags=tags)
        self._record.update(
            run_id=run.info.run_id, tracking_uri=self._place.uri, beside=self._place.beside, began=run.info.start_time
        )
        return run

    def _find_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, self._place.artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another run that began just now
                    raise
                found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def _complete(self, run: Any) -> None:
        """Parameters that are not there yet, and that the run is going on."""
        from mlflow.entities import Param

        assert self._identity is not None
        missing = [
            Param(name[:_NAME_LENGTH], str(value)[:_PARAMETER_LENGTH])
            for name, value in self._identity.parameters.items()
            if name[:_NAME_LENGTH] not in run.data.params
        ]
        for start in range(0, len(missing), _PARAMETERS_AT_ONCE):
            self._client.log_batch(run.info.run_id, params=missing[start : start + _PARAMETERS_AT_ONCE])
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")

    def metrics(self, points: Sequence[Point]) -> None:
        """Points that are new: after the last step stored, or, where they renew, of another value than it has.

        A training step that was interrupted repeats the iterations since its checkpoint, and a request that failed may have
        arrived: neither leads to two points.
        """
        from mlflow.entities import Metric

        stored, new = dict(self._stored), []
        for name, value, step, time, renews in points:
            last_step, last_value = stored.get(name, (-1, float("nan")))
            if step > last_step or (renews and step == last_step and value != last_value):
                new.append(Metric(name, value, time, step))
                stored[name] = (step, value)
        if new:
            with fail_fast(_TIMEOUT_S):
                self._client.log_batch(self.run_id, metrics=new)
        self._stored = stored

    def file(self, path: str, content: bytes) -> None:
        """An artifact by its path; one that is there is replaced."""
        parent, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as folder, fail_fast(_UPLOAD_TIMEOUT_S):
            (Path(folder) / name).write_bytes(content)
            self._client.log_artifact(self.run_id, str(Path(folder) / name), parent or None)

    def model(self, exported: Folder) -> None:
        """The detector that `model.keep` put there, as a logged model of the run."""
        from mlflow.entities import LoggedModelOutput

        from ray_kplm.tracking.model import FACTS, build

        facts = exported.read_json(FACTS)
        if self._record["model"] == facts["fingerprint"]:
            return
        with tempfile.TemporaryDirectory() as folder, fail_fast(_UPLOAD_TIMEOUT_S):
            if "model_id" not in facts:  # else an attempt failed that came so far
                tags = {"stage2": facts["fingerprint"]}
                made = self._client.create_logged_model(self._experiment, facts["name"], self.run_id, tags)
                facts["model_id"] = made.model_id
                exported.write_json(FACTS, facts)
            build(exported, Path(folder) / "model", self.run_id, facts["model_id"])
            self._client.log_model_artifacts(facts["model_id"], str(Path(folder) / "model"))
            self._client.finalize_logged_model(facts["model_id"], "READY")
            self._client.log_outputs(self.run_id, [LoggedModelOutput(facts["model_id"], facts["step"])])
        self._record.update(model=facts["fingerprint"])

    def end(self, status: str, time: int) -> None:
        """FINISHED, FAILED or KILLED at a time, ms since the epoch. A child still RUNNING was stopped with its parent."""
        with fail_fast(_TIMEOUT_S):
            wanted = f"tags.`{PARENT_TAG}` = '{self.run_id}' and attributes.status = 'RUNNING'"
            for child in self._client.search_runs([self._experiment], wanted):
                self._client.set_terminated(child.info.run_id, "KILLED", time)
            self._client.set_terminated(self.run_id, status, time)


def open_client(place: Place) -> Any:
    """MLflow's client of a place."""
    import mlflow  # takes seconds, and most commands need it not at all

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if not place.beside:
        return mlflow.MlflowClient(tracking_uri=place.uri)
    database = Path(place.uri.removeprefix(_SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with _alone(database.with_name(f".{database.name}.lock")):  # MLflow's tables are made by the first that comes
        return mlflow.MlflowClient(tracking_uri=place.uri)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While the block runs, no other process of this machine is in one for the path, where the file system has locks."""
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
