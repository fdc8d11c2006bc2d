"""Requests to MLflow about one run. Every request may block or fail."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_kplm.redaction import redact
from ray_kplm.storage import Folder
from ray_kplm.tracking.client import artifact_repository, fail_fast, open_client
from ray_kplm.tracking.messages import print_line
from ray_kplm.tracking.moves import is_copy
from ray_kplm.tracking.record import Record, StoreLocation, sqlite_path
from ray_kplm.tracking.spool import FACTS, Point

PARENT_TAG = "mlflow.parentRunId"
"""MLflow's tag for the parent of a run."""
_DIRECTORY_TAG, _COPY_TAG = "run_directory", "kplm.copied_from"
_ENDED = ("FINISHED", "FAILED", "KILLED")
_TIMEOUT_S, _UPLOAD_TIMEOUT_S = 5, 60
"""Timeouts of a request: to connect, and between two pieces of the response."""
_PARAMETERS_PER_REQUEST, _METRICS_PER_REQUEST, _PARAMETER_LENGTH, _NAME_LENGTH = 100, 1_000, 6_000, 250
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
        self._original: Any = None  # the MLflow run of the directory that this one is a copy of
        self._artifacts = self._experiment_id = ""
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
            self._check_database()
            self._client = self._client or open_client(self._location)
            run = self._find() or self._create()
            self._last = {m.key: (m.step, m.value) for m in run.data.to_proto().metrics}
            self._experiment_id, self._artifacts = run.info.experiment_id, run.info.artifact_uri
            if self._identity:
                self._complete(run, self._identity)
        self._connected = True

    def disconnect(self) -> None:
        """Make the next `connect` read the run again: after a failed request it is not known what the store received."""
        self._connected = False

    def _check_database(self) -> None:
        """Raise RunDeletedError for an ended run whose database is not beside it: nothing is created for it."""
        database = sqlite_path(self.uri)
        if self._identity is None and database is not None and not os.path.exists(database):
            raise RunDeletedError(f"MLflow run {self.run_id} is no longer at {self.uri} (there is no such file)")

    def _find(self) -> Any:
        """Return the recorded run, None if the store does not have it, or it was deleted or belongs to another directory."""
        from mlflow.exceptions import MlflowException

        if not self.run_id:
            return None
        try:
            run = self._client.get_run(self.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":
            return None
        place, here = self._record["place"] or run.data.tags.get(_DIRECTORY_TAG), str(self._record.folder)
        if place and is_copy(self._record, place, self._location):
            print_line(f"{here} is a copy of {place}, whose MLflow run stays as it is: the copy gets one of its own")
            self._original = run
            return None
        if run.data.tags.get(_DIRECTORY_TAG) != here:
            self._client.set_tag(self.run_id, _DIRECTORY_TAG, here)
        if self._record["place"] != here:
            self._record.adopt(self.run_id, self._location)
        return run

    def _create(self) -> Any:
        if self._identity is None and self._original is None:
            raise RunDeletedError(
                f"MLflow run {self.run_id} is no longer at {self.uri} (if it was deleted there, "
                f"`mlflow runs restore --run-id {self.run_id}` brings it back)"
            )
        folder, original, identity = self._record.folder, self._original, self._identity
        tags = {_DIRECTORY_TAG: str(folder)}
        tags |= {_COPY_TAG: original.info.run_id} if original else {}
        tags |= identity.tags if identity else {}
        experiment_id = (
            self._find_or_create_experiment(identity.experiment) if identity else original.info.experiment_id
        )
        run = self._client.create_run(experiment_id, run_name=folder.name, tags=tags)
        self._record.adopt(run.info.run_id, self._location, began=run.info.start_time)
        if original:
            self._record.update(model=None)
            self._take_over(original)
            self._original = None
        return self._client.get_run(run.info.run_id) if original else run

    def _take_over(self, original: Any) -> None:
        """Log the last values, and for an ended run the parameters and the status, of the run that this one is a copy of."""
        from mlflow.entities import Metric

        last = [Metric(m.key, m.value, m.timestamp, m.step) for m in original.data.to_proto().metrics]
        for start in range(0, len(last), _METRICS_PER_REQUEST):
            self._client.log_batch(self.run_id, metrics=last[start : start + _METRICS_PER_REQUEST])
        if self._identity is None:
            self._log_parameters(original.data.params, ())
            status = self._record["status"]
            self._client.set_terminated(self.run_id, status if status in _ENDED else "FINISHED")

    def _find_or_create_experiment(self, name: str) -> str:
        """Return the id of the experiment of this name, or, if that was deleted, of `name (2)` and so on."""
        from mlflow.exceptions import MlflowException

        for number in itertools.count(1):
            full_name = name if number == 1 else f"{name} ({number})"
            experiment = self._client.get_experiment_by_name(full_name)
            if experiment is None:
                try:
                    return str(self._client.create_experiment(full_name, self._location.artifacts))
                except MlflowException as error:
                    if (
                        error.error_code != "RESOURCE_ALREADY_EXISTS"
                    ):  # another process created it since the request above
                        raise
                    experiment = self._client.get_experiment_by_name(full_name)
            if experiment.lifecycle_stage == "active":
                return str(experiment.experiment_id)
            print_line(
                f"MLflow experiment {full_name!r} was deleted at {self.uri}: this run is tracked in "
                f"'{name} ({number + 1})'; `mlflow experiments restore --experiment-id {experiment.experiment_id}` brings the "
                "deleted one back"
            )
        raise AssertionError("an endless count ended")

    def _complete(self, run: Any, identity: RunIdentity) -> None:
        """Log the parameters that the run does not have yet, and set its status to RUNNING."""
        self._log_parameters(identity.parameters, run.data.params)
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")

    def _log_parameters(self, parameters: Mapping[str, Any], known: Container[str]) -> None:
        from mlflow.entities import Param

        missing = [
            Param(name[:_NAME_LENGTH], redact(str(value))[:_PARAMETER_LENGTH])
            for name, value in parameters.items()
            if name[:_NAME_LENGTH] not in known
        ]
        for start in range(0, len(missing), _PARAMETERS_PER_REQUEST):
            self._client.log_batch(self.run_id, params=missing[start : start + _PARAMETERS_PER_REQUEST])

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
            file, target = str(Path(folder) / name), parent or None
            if self._location.beside:
                artifact_repository(self._artifacts).log_artifact(file, target)
            else:
                self._client.log_artifact(self.run_id, file, target)

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
            if self._location.beside:
                model = self._client.get_logged_model(facts["model_id"])
                artifact_repository(model.artifact_location).log_artifacts(str(Path(folder) / "model"))
            else:
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
