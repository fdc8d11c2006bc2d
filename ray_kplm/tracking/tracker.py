"""Tracking of a run that is going on, and of a group of runs."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import StoppedEarly, TrackingError
from ray_kplm.run import NUMBER_FORMAT, Run
from ray_kplm.storage import Folder
from ray_kplm.tracking import model
from ray_kplm.tracking.record import Record
from ray_kplm.tracking.sender import Say, Sender, first_line
from ray_kplm.tracking.spool import Point, Spool, milliseconds
from ray_kplm.tracking.store import PARENT_TAG, Identity, Place, Store, choose

_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Parent:
    """The MLflow run whose children others are, and where it is. Picklable: it goes to the processes that do their work."""

    run_id: str
    place: Place


class Tracker:
    """Parameters, metrics, files and the model of one run. Nothing here waits for a server, and nothing is sent twice."""

    def __init__(self, folder: Folder, place: Place, identity: Identity) -> None:
        """The MLflow run of a folder, made or found again. Raises TrackingError where it has to be made and cannot.

        A child is made later then: its parent was, and a server that is away for a moment is no reason to stop a sweep.
        """
        self._record = Record(folder)
        self._place = place
        self._spool = Spool(folder / "tracking")
        self._spool.drop_end()  # of the process before
        self._sender = Sender(Store(self._record, place, identity), self._spool, say)
        self._begin(is_child=PARENT_TAG in identity.tags)
        self._step = max(self._record["step"] or 0, self._sender.store.last_step)

    def _begin(self, is_child: bool) -> None:
        store = self._sender.store
        try:
            store.connect()
        except Exception as error:
            if not store.run_id and not is_child:
                raise TrackingError(
                    f"{self._place.uri}: no MLflow run can be made there ({first_line(error)}); start the server, or unset "
                    f"MLFLOW_TRACKING_URI to track in a file beside the run"
                ) from error
            self._sender.failed(error)
        self._record.update(status="RUNNING")
        self._sender.start()

    @property
    def run_id(self) -> str:
        return self._sender.store.run_id

    @property
    def uri(self) -> str:
        return self._place.uri

    @property
    def parent(self) -> Parent:
        """This run as the parent of others: `discover(config, parent=tracker.parent)`."""
        return Parent(self.run_id, self._place)

    def set_logger(self, say: Say) -> None:
        """Where lines about the server go; standard error by default."""
        self._sender.say = say

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at a global iteration; of a name that has a number at this step or a later one, none is added."""
        now = milliseconds()
        self._step = max(self._step, step)
        self._sender.put([Point(name, float(value), step, now) for name, value in values.items()])

    def file(self, path: str, content: bytes) -> None:
        """An artifact by its path in the MLflow run, which is that in the run directory."""
        self._sender.put_file(path, content)

    def model(self, run: Run, examples: NDArray[np.uint8]) -> None:
        """The landmark detector of the finished run, see `tracking.model`. examples: uint8 (N, S, S, 3), two or more."""
        if self._record["model"] != run.finished("stage2")["fingerprint"]:
            self._sender.put_model(partial(model.keep, run, examples, self._step))

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED. What cannot be sent now stays in the run directory, and is sent by what reads it next."""
        self._record.update(status=status, step=self._step)
        if self._sender.close(status, hurry=status == "KILLED"):
            self._spool.discard()
        else:
            self._sender.say(
                f"MLflow at {self.uri} has not got {self._spool.told()} of {self._record.folder}; kept there, and sent by the "
                f"next `kplm train` or `kplm evaluate` of it"
            )


def say(text: str) -> None:
    """A line for the user."""
    print(f"kplm: {text}", file=sys.stderr, flush=True)


def experiment_name(dataset: Mapping[str, Any]) -> str:
    """One experiment for each dataset."""
    return f"kplm {dataset.get('name') or 'unnamed'}"


@contextmanager
def tracked(run: Run, dataset: Mapping[str, Any], parent: Parent | None = None) -> Iterator[Tracker]:
    """A tracker whose run ends as the block does: FINISHED, FAILED, or KILLED when the user stopped it, also by SIGTERM.

    A process that is killed outright leaves RUNNING, and the next one goes on in the same MLflow run.
    parent: the group (`grouped`) whose child the run is; it is then tracked where its parent is.
    """
    record = Record(run.folder)
    place = parent.place if parent else choose(run.folder.parent, record)
    parent_id = parent.run_id if parent else record["parent"]
    if parent and not record["run_id"]:  # to be found should the store be away until the end
        record.update(parent=parent_id, tracking_uri=place.uri, beside=place.beside)
    tags = {PARENT_TAG: parent_id} if parent_id else {}
    identity = Identity(experiment_name(dataset), run.config.flat(), tags)
    with _ending(Tracker(run.folder, place, identity)) as tracker:
        for name in ("config.yaml", "versions.json", NUMBER_FORMAT):
            tracker.file(name, run.folder.read_bytes(name))
        tracker.file("environment.txt", model.environment().encode())
        yield tracker


@contextmanager
def grouped(folder: Folder, dataset: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[Tracker]:
    """A tracker of many runs, those in the folders below `folder`, for ablations and sweeps: the parent of their MLflow runs.

    Named after the folder, in the dataset's experiment, in the store that MLFLOW_TRACKING_URI names, else in a database in the
    folder. It is made once, and the same command again goes on in it. Give `tracker.parent`, which is picklable, to each run:

        with grouped(Folder.at(config.run), dataset.meta, {"over": "negatives", **config.flat()}) as group:
            ... discover(child_config, parent=group.parent) ...  # in any process, any number at once
            group.metrics({"best/forward_nme": 4.2}, step=0)
            group.file("rows.json", b"...")

    It ends as the block does: FINISHED, FAILED or KILLED. The store and the experiment exist before the block begins, so
    children can begin at once.
    """
    place = choose(folder, Record(folder))
    with _ending(Tracker(folder, place, Identity(experiment_name(dataset), parameters))) as tracker:
        yield tracker


@contextmanager
def _ending(tracker: Tracker) -> Iterator[Tracker]:
    with _terminable():
        try:
            yield tracker
        except GeneratorExit:  # the block was left by nobody: it is as if the process were killed
            raise
        except (KeyboardInterrupt, SystemExit, StoppedEarly):
            tracker.end("KILLED")
            raise
        except BaseException:
            tracker.end("FAILED")
            raise
        tracker.end("FINISHED")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the process as Ctrl-C does, through all blocks, with the exit code that a shell expects of it."""
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
