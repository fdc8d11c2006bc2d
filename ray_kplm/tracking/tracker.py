"""Track a run, or a group of runs, while it works."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray_kplm.detectors.stored import detector_fingerprint
from ray_kplm.errors import KplmError, StoppedEarly, StorageError, TrackingError
from ray_kplm.run import NUMBER_FORMAT, Run
from ray_kplm.storage import NO_SPACE, Folder
from ray_kplm.tracking.messages import first_line, is_full, print_line
from ray_kplm.tracking.model import export_model, installed_packages
from ray_kplm.tracking.record import RECORD, URI_VARIABLE, Record, StoreLocation, choose_location, sqlite_path
from ray_kplm.tracking.sender import Sender
from ray_kplm.tracking.spool import Point, Spool, milliseconds
from ray_kplm.tracking.store import PARENT_TAG, MlflowRun, RunIdentity

_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class ParentRun:
    """An MLflow run that others are children of. Picklable: it is passed to the processes that run the children."""

    run_id: str
    location: StoreLocation


class Tracker:
    """Logs parameters, metrics, files and the model of one run. Its methods do not wait for MLflow, except `end`."""

    def __init__(self, folder: Folder, location: StoreLocation, identity: RunIdentity) -> None:
        """Find or create the MLflow run of a folder, and start to send in the background.

        Raises:
            TrackingError: the run does not exist and cannot be created. A child run is created later instead: its parent was
                created in the same store, so the store is unreachable for a while only.
            StorageError: there is no space for it.
        """
        self._record = Record(folder)
        self._location = location
        self._spool = Spool(folder / "tracking")
        self._spool.remove_end()  # of the previous process
        self._sender = Sender(MlflowRun(self._record, location, identity), self._spool, print_line)
        self._start(is_child=PARENT_TAG in identity.tags)
        self._step = max(self._record["step"] or 0, self._sender.mlflow_run.last_step)

    def _start(self, is_child: bool) -> None:
        mlflow_run = self._sender.mlflow_run
        try:
            mlflow_run.connect()
        except Exception as error:
            if not mlflow_run.run_id and not is_child:
                raise _no_run(self._location, self._record.folder, error) from error
            self._sender.failed(error)
        self._record.update(status="RUNNING")
        self._sender.start()

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, empty before it is created."""
        return self._sender.mlflow_run.run_id

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return self._location.uri

    @property
    def parent(self) -> ParentRun:
        """This run as the parent of others, for `discover(config, parent=tracker.parent)`."""
        return ParentRun(self.run_id, self._location)

    def set_logger(self, log: Callable[[str], None]) -> None:
        """Set what gets the lines about the state of the server; they are printed to standard error by default."""
        self._sender.log = log

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a global iteration. A metric that has a value at this step or a later one gets no second one."""
        now = milliseconds()
        self._step = max(self._step, step)
        self._sender.put([Point(name, float(value), step, now) for name, value in values.items()])

    def log_file(self, path: str, content: bytes) -> None:
        """Log an artifact by its path in the MLflow run, which is the path in the run directory."""
        self._sender.put_file(path, content)

    def log_model(self, run: Run) -> None:
        """Log the landmark detector of a finished run, see `tracking.model`."""
        if self._record["model"] != detector_fingerprint(run):
            self._sender.put_model(partial(export_model, run, self._step))

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED. What cannot be sent now stays in the run directory to be sent later."""
        self._record.update(status=status, step=self._step)
        if self._sender.close(status, fast=status == "KILLED"):
            self._spool.clear()
        else:
            self._sender.log(
                f"MLflow at {self.uri} has not received {self._spool.summary()} of {self._record.folder}; this is kept there, "
                f"and the next `kplm train` or `kplm evaluate` of the run sends it"
            )


def _no_run(location: StoreLocation, folder: Folder, error: Exception) -> KplmError:
    """Return the error for a store in which no run can be created."""
    database = sqlite_path(location.uri)
    if is_full(error):
        return StorageError(f"{database or location.uri}: {NO_SPACE}")
    mend = "start the server" if database is None else "let it be written, or move that file away: a new one is made"
    other = ""
    if os.environ.get(URI_VARIABLE):
        other = f", or unset {URI_VARIABLE} to track in a file beside the run"
    elif not location.beside and location.artifacts is None:
        other = f", or remove {folder}/{RECORD} to track in a file beside the run"
    reason = first_line(error)
    return TrackingError(f"{database or location.uri}: no MLflow run can be created there ({reason}); {mend}{other}")


@contextmanager
def track_run(run: Run, dataset: Mapping[str, Any], parent: ParentRun | None = None) -> Iterator[Tracker]:
    """Track a run while the block runs. The MLflow run ends as the block does.

    It ends as FINISHED; as KILLED after Ctrl-C, SIGTERM or an early stop; as FAILED after another error. After SIGKILL it stays
    RUNNING, and the next process continues it.

    Args:
        run: a saved run.
        dataset: the content of its `dataset.json`; its name is in that of the MLflow experiment.
        parent: the group (`track_group`) that the run belongs to; it is tracked in the same store.
    """
    record = Record(run.folder)
    location = parent.location if parent else choose_location(run.folder.parent, record)
    parent_id = parent.run_id if parent else record["parent"]
    if parent and not record["run_id"]:  # for a later process, if the store cannot be reached by this one
        record.update(parent=parent_id, tracking_uri=location.uri, beside=location.beside)
    tags = {PARENT_TAG: parent_id} if parent_id else {}
    identity = RunIdentity(_experiment_name(dataset), run.config.flat(), tags)
    with _ending(Tracker(run.folder, location, identity)) as tracker:
        for name in ("config.yaml", "versions.json", NUMBER_FORMAT):
            tracker.log_file(name, run.folder.read_bytes(name))
        tracker.log_file("environment.txt", installed_packages().encode())
        yield tracker


@contextmanager
def track_group(folder: Folder, dataset: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[Tracker]:
    """Track many runs in folders below `folder` (an ablation, a sweep) as children of one MLflow run.

    It is named after the folder, in the dataset's experiment, and created once; the same command again continues it. Pass
    `tracker.parent`, which is picklable, to each run:

        with track_group(Folder.at(config.run), dataset.meta, {"over": "negatives", **config.flat()}) as group:
            ... discover(child_config, parent=group.parent) ...  # in any process, any number at once
            group.log_metrics({"best/forward_nme": 4.2}, step=0)
            group.log_file("rows.json", b"...")

    It ends as that of `track_run` does. The store and the experiment exist before the block begins, so children may start at
    once.

    Args:
        folder: of the group. The store is the one of MLFLOW_TRACKING_URI, else a database in this folder.
        dataset: the content of `dataset.json`.
        parameters: of the MLflow run.
    """
    location = choose_location(folder, Record(folder))
    with _ending(Tracker(folder, location, RunIdentity(_experiment_name(dataset), parameters))) as tracker:
        yield tracker


def _experiment_name(dataset: Mapping[str, Any]) -> str:
    return f"kplm {dataset.get('name') or 'unnamed'}"


@contextmanager
def _ending(tracker: Tracker) -> Iterator[Tracker]:
    with _sigterm_raises():
        try:
            yield tracker
        except GeneratorExit:  # the generator was dropped in the middle of the block, as if the process were killed
            raise
        except (KeyboardInterrupt, SystemExit, StoppedEarly):
            tracker.end("KILLED")
            raise
        except BaseException:
            tracker.end("FAILED")
            raise
        tracker.end("FINISHED")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Make SIGTERM raise SystemExit with the shell's exit code 143, so that all blocks are left in order, as by Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
