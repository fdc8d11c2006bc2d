"""MLflow, and the only place that imports it.

One MLflow run for each run directory: its id is kept there, so a run that goes on after an interruption goes on in MLflow too.
The store is MLFLOW_TRACKING_URI if set, else a sqlite database beside the run directory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_kplm.run import Run
from ray_kplm.storage import Folder

_KEY = "mlflow.json"
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class Parent:
    """The MLflow run whose children others are, and where it is. Picklable: it goes to the processes that do their work."""

    run_id: str
    tracking_uri: str


class Tracker:
    """Parameters, metrics and pictures of one run. Metrics at or before the last step already stored are not sent again."""

    def __init__(
        self,
        folder: Folder,
        experiment: str,
        parameters: dict[str, Any],
        parent: Parent | None,
        store: tuple[str, str | None],
    ) -> None:
        import mlflow  # takes seconds, and most commands need it not at all

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        os.environ.setdefault("MLFLOW_DISABLE_ENV_CREATION", "true")
        uri, artifacts = store
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self.uri = uri
        self.run_id = self._resume(folder, uri) or self._create(folder, experiment, parameters, parent, artifacts)
        folder.write_json(_KEY, {"run_id": self.run_id, "tracking_uri": uri})
        self._client.update_run(self.run_id, status="RUNNING")
        self._last: dict[str, int] = {}

    @property
    def parent(self) -> Parent:
        """This run as the parent of others: `discover(config, parent=tracker.parent)`."""
        return Parent(self.run_id, self.uri)

    def _resume(self, folder: Folder, uri: str) -> str | None:
        if not folder.is_file(_KEY):
            return None
        known = folder.read_json(_KEY)
        return known["run_id"] if known["tracking_uri"] == uri else None

    def _create(
        self, folder: Folder, experiment: str, parameters: dict[str, Any], parent: Parent | None, artifacts: str | None
    ) -> str:
        identity = _experiment(self._client, experiment, artifacts)
        tags = {"run_directory": str(folder), **({_PARENT_TAG: parent.run_id} if parent else {})}
        created = self._client.create_run(identity, run_name=folder.name, tags=tags)
        for name, value in parameters.items():
            self._client.log_param(created.info.run_id, name, value)
        return created.info.run_id

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Numbers at a global iteration."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        new = [Metric(name, float(value), now, step) for name, value in values.items() if step > self._last_step(name)]
        if new:
            self._client.log_batch(self.run_id, metrics=new)

    def _last_step(self, name: str) -> int:
        if name not in self._last:
            history = self._client.get_metric_history(self.run_id, name)
            self._last[name] = max((metric.step for metric in history), default=-1)
        return self._last[name]

    def picture(self, png: bytes, name: str) -> None:
        """A PNG among the run's artifacts."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(png)
            self._client.log_artifact(self.run_id, str(path))

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name, artifacts)


def _store(beside: Folder, parent: Parent | None) -> tuple[str, str | None]:
    """Tracking URI, and the folder of artifacts where we choose it. Absolute: workers have another working directory."""
    given = parent.tracking_uri if parent else os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given, None
    local = Path(beside.path) if beside.is_local else Path.cwd()
    local.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{local}/mlflow.db", (local / "mlartifacts").as_uri()


def experiment_name(dataset: dict[str, Any]) -> str:
    """One experiment for each dataset."""
    return f"kplm {dataset.get('name') or 'unnamed'}"


@contextmanager
def tracked(run: Run, dataset: dict[str, Any], parent: Parent | None = None) -> Iterator[Tracker]:
    """A tracker whose run ends as the block does: FINISHED, FAILED, or KILLED when the user stopped it.

    parent: the group (`grouped`) whose child the run is; it is then tracked where its parent is.
    """
    store = _store(run.folder.parent, parent)
    with _ending(Tracker(run.folder, experiment_name(dataset), run.config.flat(), parent, store)) as tracker:
        yield tracker


@contextmanager
def grouped(folder: Folder, dataset: dict[str, Any], parameters: dict[str, Any]) -> Iterator[Tracker]:
    """A tracker of many runs, those in the folders below `folder`, for ablations and sweeps: the parent of their MLflow runs.

    Named after the folder, in the dataset's experiment, in the store that MLFLOW_TRACKING_URI names, else in a database in the
    folder. It is made once, and the same command again goes on in it. Give `tracker.parent`, which is picklable, to each run:

        with grouped(Folder.at(config.run), dataset.meta, {"over": "negatives", **config.flat()}) as group:
            ... discover(child_config, parent=group.parent) ...  # in any process, any number at once
            group.metrics({"best/forward_nme": 4.2}, step=0)

    It ends as the block does: FINISHED, FAILED or KILLED. The store and the experiment exist before the block begins, so
    children can begin at once.
    """
    with _ending(Tracker(folder, experiment_name(dataset), parameters, None, _store(folder, None))) as tracker:
        yield tracker


@contextmanager
def _ending(tracker: Tracker) -> Iterator[Tracker]:
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def _reopened(run: Run) -> Tracker | None:
    """The tracker of a run that was tracked, where it was."""
    if not run.folder.is_file(_KEY):
        return None
    return Tracker(run.folder, "", {}, None, (run.folder.read_json(_KEY)["tracking_uri"], None))


def add_evaluation(run: Run, metrics: dict[str, Any]) -> None:
    """Scores and curves of a finished run, into its MLflow run."""
    tracker = _reopened(run)
    if tracker is None:
        return
    stage1 = run.config.stage1
    step = stage1.warmup_iterations + stage1.rounds * stage1.round_iterations + run.config.stage2.iterations
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float)) and name != "seconds"}
    tracker.metrics({f"evaluation/{name}": value for name, value in numbers.items()}, step)
    tracker.picture((run.folder / "evaluation").read_bytes("curves.png"), "curves.png")
    tracker.end("FINISHED")


def add_picture(run: Run, png: bytes, name: str) -> None:
    """A picture of a finished run, into its MLflow run."""
    tracker = _reopened(run)
    if tracker is None:
        return
    tracker.picture(png, name)
    tracker.end("FINISHED")
