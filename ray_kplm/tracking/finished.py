"""Add scores, pictures and reports to the MLflow run of a run that has ended, and check it. Its status and times are kept."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking.client import open_client
from ray_kplm.tracking.messages import print_line
from ray_kplm.tracking.record import Record, recorded_location
from ray_kplm.tracking.sender import Sender
from ray_kplm.tracking.spool import Point, Spool, milliseconds
from ray_kplm.tracking.store import MlflowRun
from ray_kplm.tracking.tracker import track_run

_NOT_ALLOWED = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow does not allow in the name of a metric."""
_LEFT_OUT = ("seconds", "stages")
"""Entries of an evaluation that are not scores, or repeat others."""


def add_evaluation(run: Run, metrics: Mapping[str, Any]) -> None:
    """Add an evaluation: its numbers, those in nested mappings too, and the files in `<run>/evaluation`.

    In a second evaluation, each number that changed is added as a newer value at the last step.
    """
    values = {name: value for name, value in metrics.items() if name not in _LEFT_OUT}
    folder = run.folder / "evaluation"
    files = {
        f"evaluation/{name}": folder.read_bytes(name) for name in ("metrics.json", "curves.png") if folder.is_file(name)
    }
    _add(run, dict(_numbers(values, "evaluation")), files)


def add_picture(run: Run, png: bytes, name: str) -> None:
    """Add a picture of `kplm show`."""
    _add(run, {}, {f"evaluation/{name}": png})


def add_report(run: Run, report: str | os.PathLike[str] | Folder | None = None) -> None:
    """Add a report: an HTML file, or a folder with everything in it; by default `<run>/report`."""
    source = run.folder / "report" if report is None else report if isinstance(report, Folder) else Folder.at(report)
    if source.parent.is_file(source.name):
        _add(run, {}, {f"report/{source.name}": source.parent.read_bytes(source.name)})
    else:
        _add(run, {}, {f"report/{path}": source.read_bytes(path) for path in source.walk()})


def send_pending(run: Run, dataset: Mapping[str, Any]) -> None:
    """Send what MLflow does not have yet of a finished run: its server was unreachable, or the process was killed at the end.

    Where nothing is missing this is quick, and does not import MLflow.

    Args:
        run: the run.
        dataset: the content of its `dataset.json`.
    """
    record = Record(run.folder)
    if not _is_tracked(record):
        return
    if record["run_id"] and record["status"] in (None, "FINISHED"):
        _send(run, Spool(run.folder / "tracking"))
        return
    with track_run(run, dataset) as tracker:
        tracker.log_model(run)


def has_pending(run: Run) -> bool:
    """Return whether `send_pending` has something to do."""
    record = Record(run.folder)
    if not _is_tracked(record):
        return False
    ended = record["run_id"] and record["status"] in (None, "FINISHED")
    return not ended or not Spool(run.folder / "tracking").is_empty()


def audit(run: Run) -> dict[str, Any]:
    """Return what the MLflow store has of a run, to check that it was tracked once and without repetitions.

    Returns:
        `runs`: number of MLflow runs of this run directory; and of the recorded one `status`, and `repeated`, the names of
        metrics with more than one value at a step.
    """
    record = Record(run.folder)
    client = open_client(recorded_location(run.folder.parent, record))
    mlflow_run = client.get_run(record["run_id"])
    directory = mlflow_run.data.tags["run_directory"]
    found = client.search_runs([mlflow_run.info.experiment_id])
    steps = {
        name: Counter(point.step for point in client.get_metric_history(mlflow_run.info.run_id, name))
        for name in mlflow_run.data.metrics
        if not name.startswith("system/")
    }
    return {
        "runs": sum(one.data.tags.get("run_directory") == directory for one in found),
        "status": mlflow_run.info.status,
        "repeated": sorted(name for name, counts in steps.items() if max(counts.values()) > 1),
    }


def _add(run: Run, numbers: Mapping[str, float], files: Mapping[str, bytes]) -> None:
    record = Record(run.folder)
    if not _is_tracked(record):
        return
    now, spool = milliseconds(), Spool(run.folder / "tracking")
    spool.add([Point(name, value, record["step"] or 0, now, replaces=True) for name, value in numbers.items()])
    for path, content in files.items():
        spool.put_file(path, content)
    _send(run, spool)


def _is_tracked(record: Record) -> bool:
    """Return whether a run is tracked. With a server that was never reached it has a status, and no MLflow run yet."""
    return bool(record["run_id"] or record["status"])


def _send(run: Run, spool: Spool) -> None:
    if spool.is_empty():
        return
    record = Record(run.folder)
    if not record["run_id"]:
        print_line(f"{run.folder} has no MLflow run yet: the next `kplm train` of it sends {spool.summary()}")
        return
    location = recorded_location(run.folder.parent, record)
    if Sender(MlflowRun(record, location, None), spool, print_line).send():
        spool.clear()


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        path = f"{prefix}/{_NOT_ALLOWED.sub('_', str(name))}"
        if isinstance(value, Mapping):
            yield from _numbers(value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield path, float(value)
