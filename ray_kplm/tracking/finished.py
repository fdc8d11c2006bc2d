"""What comes to a run after it ended: scores, pictures, reports. Its status and its times stay as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking.record import Record
from ray_kplm.tracking.sender import Sender
from ray_kplm.tracking.spool import Point, Spool, milliseconds
from ray_kplm.tracking.store import Store, recorded
from ray_kplm.tracking.tracker import say, tracked

_UNFIT = re.compile(r"[^\w\-. :/]")
_LEFT_OUT = ("seconds", "stages")
"""Of an evaluation: not about the landmarks, and said once more."""


def add_evaluation(run: Run, metrics: Mapping[str, Any]) -> None:
    """Scores and curves of `kplm evaluate`: the numbers, those in nested mappings too, and the files it left.

    Evaluated again, a number that changed is there once more, as the newest of the last step.
    """
    values = {name: value for name, value in metrics.items() if name not in _LEFT_OUT}
    folder = run.folder / "evaluation"
    files = {
        f"evaluation/{name}": folder.read_bytes(name) for name in ("metrics.json", "curves.png") if folder.is_file(name)
    }
    _add(run, dict(_numbers(values, "evaluation")), files)


def add_picture(run: Run, png: bytes, name: str) -> None:
    """A picture of `kplm show`."""
    _add(run, {}, {f"evaluation/{name}": png})


def add_report(run: Run, report: str | os.PathLike[str] | Folder | None = None) -> None:
    """A report: an HTML file, or a folder with all that is in it; by default `<run>/report`."""
    source = run.folder / "report" if report is None else report if isinstance(report, Folder) else Folder.at(report)
    if source.parent.is_file(source.name):
        _add(run, {}, {f"report/{source.name}": source.parent.read_bytes(source.name)})
    else:
        _add(run, {}, {f"report/{path}": source.read_bytes(path) for path in source.walk()})


def catch_up(run: Run, dataset: Mapping[str, Any], examples: Callable[[], NDArray[np.uint8]]) -> None:
    """What MLflow has not got of a finished run: because its server was down, or the process was killed just before the end.

    examples: as of `Tracker.model`, made when they are needed. Quick, and without MLflow, where nothing is missing.
    """
    record = Record(run.folder)
    if not _is_tracked(record):
        return
    if record["run_id"] and record["status"] in (None, "FINISHED"):
        _send(run, Spool(run.folder / "tracking"))
        return
    with tracked(run, dataset) as tracker:
        tracker.model(run, examples())


def _add(run: Run, numbers: Mapping[str, float], files: Mapping[str, bytes]) -> None:
    record = Record(run.folder)
    if not _is_tracked(record):
        return
    now, spool = milliseconds(), Spool(run.folder / "tracking")
    spool.add([Point(name, value, record["step"] or 0, now, renews=True) for name, value in numbers.items()])
    for path, content in files.items():
        spool.put_file(path, content)
    _send(run, spool)


def _is_tracked(record: Record) -> bool:
    """A run whose server was away all the time has a status, and no MLflow run yet."""
    return bool(record["run_id"] or record["status"])


def _send(run: Run, spool: Spool) -> None:
    if spool.is_empty():
        return
    record = Record(run.folder)
    if not record["run_id"]:
        say(f"{run.folder} has no MLflow run yet: {spool.told()} wait for the next `kplm train` of it")
        return
    sender = Sender(Store(record, recorded(run.folder.parent, record), None), spool, say)
    if sender.send():
        spool.discard()


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        path = f"{prefix}/{_UNFIT.sub('_', str(name))}"
        if isinstance(value, Mapping):
            yield from _numbers(value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield path, float(value)
