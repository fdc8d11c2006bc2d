"""Checkpoints of a training that are written and reported in a thread, while the training goes on."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future

import ray.train
from ray.train import Checkpoint

from ray_kplm.runtime.checkpoints import write_checkpoint
from ray_kplm.storage import Folder


class CheckpointWriter:
    """Writes and reports the checkpoints of a training, one at a time.

    All ranks call `write` at the same iterations, since Ray Train waits in a report for all of them. That waiting is in the
    thread too. The thread is a daemon: a worker that ends with an error does not wait for a report that other ranks never make.
    """

    def __init__(self, job: str, rank: int) -> None:
        """Create a writer.

        Args:
            job: fingerprint of the step that is trained.
            rank: of this worker.
        """
        self._job, self._rank = job, rank
        self._pending: Future[None] | None = None

    def write(self, freeze: Callable[[], Callable[[], bytes]], iteration: int, metrics: dict[str, float]) -> None:
        """Begin a checkpoint, when the one before has been reported.

        Args:
            freeze: copies the state and returns what makes the stored state of the copy: `Learner.freeze`. Rank 0 calls it.
            iteration: iterations done.
            metrics: reported with the checkpoint.

        Raises:
            Exception: that of the checkpoint before.
        """
        self.wait()
        state = freeze() if self._rank == 0 else None
        pending: Future[None] = Future()
        self._pending = pending
        thread = threading.Thread(
            target=_settle,
            args=(pending, lambda: self._report(state, iteration, metrics)),
            name="checkpoint",
            daemon=True,
        )
        thread.start()

    def check(self) -> None:
        """Raise the error of the last checkpoint if it has failed; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when the last checkpoint has been reported, or raise its error."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _report(self, state: Callable[[], bytes] | None, iteration: int, metrics: dict[str, float]) -> None:
        """Report a checkpoint to Ray Train: rank 0 with the files, which Ray Train copies before it notes the checkpoint."""
        report = {**metrics, "iteration": iteration}
        if state is None:
            ray.train.report(report)
            return
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Folder.at(folder), state(), self._job, iteration)
            ray.train.report(report, checkpoint=Checkpoint.from_directory(folder))


def _settle(pending: Future[None], work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:
        pending.set_exception(error)
    else:
        pending.set_result(None)
