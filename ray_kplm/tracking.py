"""MLflow, and the only place that imports it.

One MLflow run for each run directory: its id is kept there, so a run that goes on after an interruption goes on in MLflow too.
The store is MLFLOW_TRACKING_URI if set, else a sqlite database beside the run directory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_kplm.run import Run

_KEY = "mlflow.json"


class Tracker:
    """Parameters, metrics and pictures of one run. Metrics at or before the last step already stored are not sent again."""

    def __init__(self, run: Run, experiment: str) -> None:
        import mlflow  # takes seconds, and most commands need it not at all

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        os.environ.setdefault("MLFLOW_DISABLE_ENV_CREATION", "true")
        uri, artifacts = _store(run)
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self.uri = uri
        self.run_id = self._resume(run, uri) or self._create(run, experiment, artifacts)
        run.folder.write_json(_KEY, {"run_id": self.run_id, "tracking_uri": uri})
        self._client.update_run(self.run_id, status="RUNNING")
        self._last: dict[str, int] = {}

    def _resume(self, run: Run, uri: str) -> str | None:
        if not run.folder.is_file(_KEY):
            return None
        known = run.folder.read_json(_KEY)
        return known["run_id"] if known["tracking_uri"] == uri else None

    def _create(self, run: Run, experiment: str, artifacts: str | None) -> str:
        identity = _experiment(self._client, experiment, artifacts)
        created = self._client.create_run(identity, run_name=run.folder.name, tags={"run_directory": str(run.folder)})
        for name, value in run.config.flat().items():
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


def prepare(run: Run, dataset: dict[str, Any]) -> None:
    """Make the store and the experiment of a run, for several runs that will begin at once and must find them."""
    import mlflow

    uri, artifacts = _store(run)
    _experiment(mlflow.MlflowClient(tracking_uri=uri), experiment_name(dataset), artifacts)


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name, artifacts)


def _store(run: Run) -> tuple[str, str | None]:
    """Tracking URI, and the folder of artifacts where we choose it. Absolute: workers have another working directory."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given, None
    parent = Path(run.folder.path).parent if run.folder.is_local else Path.cwd()
    parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{parent}/mlflow.db", (parent / "mlartifacts").as_uri()


def experiment_name(dataset: dict[str, Any]) -> str:
    """One experiment for each dataset."""
    return f"kplm {dataset.get('name') or 'unnamed'}"


@contextmanager
def tracked(run: Run, dataset: dict[str, Any]) -> Iterator[Tracker]:
    """A tracker whose run ends as the block does: FINISHED, FAILED, or KILLED when the user stopped it."""
    tracker = Tracker(run, experiment_name(dataset))
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def add_evaluation(run: Run, metrics: dict[str, Any]) -> None:
    """Scores and curves of a finished run, into its MLflow run."""
    if not run.folder.is_file(_KEY):
        return
    tracker = Tracker(run, "")
    stage1 = run.config.stage1
    step = stage1.warmup_iterations + stage1.rounds * stage1.round_iterations + run.config.stage2.iterations
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float)) and name != "seconds"}
    tracker.metrics({f"evaluation/{name}": value for name, value in numbers.items()}, step)
    tracker.picture((run.folder / "evaluation").read_bytes("curves.png"), "curves.png")
    tracker.end("FINISHED")


def add_picture(run: Run, png: bytes, name: str) -> None:
    """A picture of a finished run, into its MLflow run."""
    if not run.folder.is_file(_KEY):
        return
    tracker = Tracker(run, "")
    tracker.picture(png, name)
    tracker.end("FINISHED")


def add_report(run: Run) -> None:
    """The report's page of a finished run, into its MLflow run."""
    add_picture(run, (run.folder / "report").read_bytes("index.html"), "report.html")
