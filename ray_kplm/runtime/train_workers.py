"""Long-lived workers of Ray Train: they run one training after another, each of which publishes `network.pt`.

Starting worker processes takes longer than a short round. So a `TrainWorkerPool` keeps them for several trainings
(`compute.rounds_per_fit`): one Ray Train fit, whose workers run one job after another. Where they hold the GPUs, they also
work on parts and hold the shards of K-means between the trainings.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import KplmError, RunError, StorageError
from ray_kplm.parts import ChosenParts, Pool, Workers
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Step
from ray_kplm.runtime.checkpoints import inherit_checkpoint
from ray_kplm.runtime.map_parts import RayWorkers
from ray_kplm.runtime.progress_channel import MetricsCallback
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.scaling import trainings_per_fit
from ray_kplm.runtime.shard_hosts import HeldShard, PoolHosts
from ray_kplm.runtime.train_loop import METRICS, Job, Training
from ray_kplm.runtime.worker_group import POLL_S, WorkerGroup
from ray_kplm.runtime.worker_jobs import MapJob, ShardsJob
from ray_kplm.storage import NO_SPACE, Folder

T = TypeVar("T")

_RAY_FOLDER = "ray"
_NO_OWNER = "unlocked"
"""Folder of the checkpoints of trainings in a folder that nobody locked."""


def train(step: Step, training: Training, on_metrics: MetricsCallback) -> dict[str, Any]:
    """Run one training with its own workers, which end with it: see `TrainWorkerPool.train`."""
    pool = TrainWorkerPool(training.config.compute, step.folder)
    manifest = pool.train(step, training, on_metrics)
    pool.close()
    return manifest


class TrainWorkerPool:
    """Training workers, which are started when they are needed and stay for `compute.rounds_per_fit` trainings."""

    def __init__(self, compute: ComputeConfig, folder: Folder) -> None:
        """Create a pool without workers.

        Args:
            compute: number of workers, and what each reserves.
            folder: Ray Train writes the checkpoints of unfinished trainings below it. Each driver has a folder of its own
                there, named by its token, so none writes over or deletes what another one writes. It begins with what the
                others left.
        """
        self._compute, self._checkpoints, self._guard = compute, folder / _RAY_FOLDER, folder.guard
        self._folder = self._checkpoints / (folder.guard.token if folder.guard else _NO_OWNER)
        self._group: WorkerGroup | None = None

    @property
    def has_checkpoints(self) -> bool:
        """Whether there are checkpoints that `close` deletes."""
        return self._checkpoints.exists()

    @property
    def keeps(self) -> bool:
        """Whether workers stay after a training, with the nodes that the cluster has now. Ray must be initialised."""
        return trainings_per_fit(self._compute, ray.cluster_resources()) > 1

    @property
    def holds_gpus(self) -> bool:
        """Whether workers stay after a training, and keep the GPUs. Ray must be initialised."""
        return self._compute.gpus_per_worker > 0 and self.keeps

    def prepare(self, batch: int) -> None:
        """Start Ray Train's controller ahead of a training, which takes seconds.

        The controller starts the workers, and reserves their CPUs and GPUs, when the training begins.

        Args:
            batch: `Plan.batch` of the training, which the workers share.
        """
        self._group = self._group or WorkerGroup(self._compute, self._folder, batch)

    def train(self, step: Step, training: Training, on_metrics: MetricsCallback) -> dict[str, Any]:
        """Run a training to its end, from its last checkpoint if one exists, and publish the step.

        Args:
            step: the step of the run; the network is written to its folder.
            training: what the workers do.
            on_metrics: called with the iterations done and the mean metrics since the last call.

        Returns:
            The step's manifest, with `workers`: number of workers that finished the training; `starts`: iterations at which
            workers started, 0 and those of the checkpoints that were resumed from; `iterating_seconds`: time from the last
            start to the end.

        Raises:
            CollapseError: the loss is not finite.
            RunError: the workers failed too often.
            StorageError: storage is full.
        """
        inherited = inherit_checkpoint(self._checkpoints, self._folder, step.fingerprint)
        job = Job(step.fingerprint, training, step.folder, inherited)
        earlier_starts: list[int] = []

        def run(group: WorkerGroup) -> dict[str, Any]:
            try:
                stats = group.train(job, on_metrics)
            except Exception:
                earlier_starts.extend(group.starts())
                raise
            return {"workers": group.workers, **stats, "starts": [*earlier_starts, *stats["starts"]]}

        facts = self._run_with_retries(training.plan.batch, run, str(step.folder), "training failed")
        metrics = step.folder.read_json(METRICS)
        manifest = step.finish(iterations=training.plan.iterations, metrics=metrics, **facts)
        allowed = trainings_per_fit(self._compute, ray.cluster_resources())
        if self._group is None or self._group.trainings >= allowed:
            self.close()
        return manifest

    def place(self, batch: int | None) -> Workers:
        """Return where parts are worked on: the workers if they hold the GPUs, otherwise tasks or actors of Ray Data.

        Args:
            batch: `Plan.batch` of the next training; None if no training follows, for which workers would stay.
        """
        return RayWorkers() if batch is None or not self.holds_gpus else _PoolPlace(self, batch)

    def map(
        self,
        worker: type,
        arguments: dict[str, Any],
        parts: ChosenParts,
        batch: int,
        progress: ProgressCallback = ignore_progress,
    ) -> list[dict[str, Any]]:
        """Work on parts in the training workers: see `parts.Workers.map`.

        The parts of a worker that dies are worked on again, by the workers that Ray Train starts in place of the group.

        Args:
            worker: class of callables that take a part's name and its selected rows.
            arguments: of its constructor.
            parts: parts of the table, and the selected rows of each.
            batch: `Plan.batch` of the next training.
            progress: called after each part.

        Raises:
            KplmError: raised by a worker.
            RunError: the workers failed too often.
        """
        names, rows = list(parts.parts), list(parts.rows)
        results: dict[int, dict[str, Any]] = {}

        def run(group: WorkerGroup) -> None:
            missing = [index for index in range(len(names)) if index not in results]
            job = MapJob(worker, arguments, [names[i] for i in missing], [rows[i] for i in missing], self._guard)

            def on_done(done: int) -> None:
                whole = len(names) - len(missing) + done
                progress(whole / len(names), f"{whole}/{len(names)} parts")

            try:
                group.map(job, on_done)
            finally:
                results.update({missing[index]: result for index, result in group.map_results().items()})

        if names:
            self._run_with_retries(batch, run, worker.__name__, "the workers failed")
        return list(results.values())

    @contextmanager
    def hosting(self, batch: int) -> Iterator[tuple[PoolHosts, Callable[[ray.ObjectRef], Any]]]:
        """Let the workers hold shards of K-means while the block runs.

        Yields the hosts, and what waits for a value as long as the workers live. If they have failed too often, it raises
        RayActorError, and the next block has new ones.
        """
        group = self._usable_group(batch)
        with group.shards(ShardsJob(HeldShard)) as queue:
            yield PoolHosts(queue, group.workers), lambda reference: self._wait(group, reference)

    def _wait(self, group: WorkerGroup, reference: ray.ObjectRef) -> Any:
        while not ray.wait([reference], timeout=POLL_S)[0]:
            if (error := group.failure()) is not None:
                self.stop()
                raise RayActorError from error
        return ray.get(reference)

    def make_room(self, *, gpus: bool) -> None:
        """Stop workers that have worked, if what follows has no room beside them.

        The cluster may have too few CPUs left, as after the loss of a node.

        Args:
            gpus: whether what follows may need GPUs for itself.
        """
        if self._group and self._group.jobs and (not self.keeps or (gpus and self.holds_gpus)):
            self.stop()

    def stop(self) -> None:
        """Stop the workers, if there are any; checkpoints stay. Not to be called while they work."""
        if self._group:
            self._group.close()
            self._group = None

    def close(self) -> None:
        """Stop the workers, and delete the checkpoints of finished trainings. Not to be called while a training runs."""
        self.stop()
        self._checkpoints.delete()

    def _usable_group(self, batch: int) -> WorkerGroup:
        """Return the workers, new ones if the present ones cannot share a batch of this size."""
        if self._group and not self._group.is_usable_for(batch):
            self.stop()
        self._group = self._group or WorkerGroup(self._compute, self._folder, batch)
        return self._group

    def _run_with_retries(self, batch: int, work: Callable[[WorkerGroup], T], where: str, failed: str) -> T:
        """Do something with the workers, and with new ones after a failure that Ray Train does not handle itself.

        An elastic pool then starts as many workers as the cluster has resources for.

        Args:
            batch: what the workers share.
            work: what is done.
            where: what the message of a failure begins with.
            failed: what the message says.
        """
        tries = self._compute.max_failures + 1
        while True:
            tries -= 1
            try:
                return work(self._usable_group(batch))
            except Exception as error:
                if isinstance(error, KplmError) and self._group and self._group.failure() is None:
                    raise  # a worker found something wrong in a part; all workers live
                # Ray Train restarts the workers of a pool of fixed size itself, unless its controller died; but it counts the
                # failures of all jobs of a group together.
                had_worked = self._group is not None and self._group.jobs > 0
                can_retry = self._compute.is_elastic or isinstance(error, RayActorError) or had_worked
                self.stop()
                if not (tries and can_retry) or _user_error(error):
                    raise _as_user_error(error, where, failed) from error


class _PoolPlace(RayWorkers):
    """The workers of a pool as the place of work."""

    def __init__(self, pool: TrainWorkerPool, batch: int) -> None:
        self._pool, self._batch = pool, batch

    def map(
        self,
        worker: type,
        arguments: dict[str, Any],
        parts: ChosenParts,
        pool: Pool,
        progress: ProgressCallback = ignore_progress,
    ) -> list[dict[str, Any]]:
        """Call a worker for every part in the training workers, whatever `pool` says: `TrainWorkerPool.map`."""
        return self._pool.map(worker, arguments, parts, self._batch, progress)


def _as_user_error(error: Exception, where: str, failed: str) -> KplmError:
    """Return an error of one line: the worker's own if it raised one, else one with the last line of Ray Train's."""
    failure = _failures(error)[0]
    last_line = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    if os.strerror(errno.ENOSPC) in last_line:  # Ray Train failed to write a checkpoint
        return StorageError(f"{where}: {NO_SPACE}")
    return _user_error(error) or RunError(f"{where}: {failed}: {last_line}; run the same command again to continue")


def _user_error(error: Exception) -> KplmError | None:
    """Return the `KplmError` that a worker raised, if any: a retry would raise it again."""
    return next(filter(None, map(unwrap_user_error, _failures(error))), None)


def _failures(error: Exception) -> list[BaseException]:
    """Return the errors of the workers that a Ray Train error holds, and the error itself."""
    return [*(getattr(error, "worker_failures", None) or {}).values(), error]
