"""Train networks with Ray Train: worker processes run jobs from a queue, and each training publishes `network.pt`.

Starting worker processes takes longer than a short round. So a `TrainWorkerPool` keeps them for several trainings
(`compute.rounds_per_fit`): one Ray Train fit, whose workers run one job after another.
"""

from __future__ import annotations

import errno
import gc
import os
import threading
from contextlib import closing, suppress
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayActorError, RayError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import KplmError, RunError, StorageError
from ray_kplm.locking.fence import Patrol
from ray_kplm.run import Step
from ray_kplm.runtime import placement_groups, session
from ray_kplm.runtime.checkpoints import inherit_checkpoint
from ray_kplm.runtime.job_queue import JobQueue
from ray_kplm.runtime.progress_channel import MetricsCallback, forward_progress
from ray_kplm.runtime.ray_private import ControllerCallback, PlacementGroupCleanerCallback
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.scaling import ScaleUpRequest, choose_now
from ray_kplm.runtime.train_loop import METRICS, Job, Training, train_loop
from ray_kplm.storage import NO_SPACE, Folder, Guard

_JobQueueActor: Any = ray.remote(num_cpus=0)(JobQueue)
_RAY_FOLDER = "ray"
_NO_OWNER = "unlocked"
"""Folder of the checkpoints of trainings in a folder that nobody locked."""
_POLL_S = 1.0
"""Interval at which the driver checks that the workers are alive."""
_CONTROLLER_FAILURES = 2
"""Times that Ray Train tries again to start a group of workers for which no resources are free."""


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
        self._compute, self._checkpoints = compute, folder / _RAY_FOLDER
        self._folder = self._checkpoints / (folder.guard.token if folder.guard else _NO_OWNER)
        self._trainer: _TrainerThread | None = None

    @property
    def has_checkpoints(self) -> bool:
        """Whether there are checkpoints that `close` deletes."""
        return self._checkpoints.exists()

    def prepare(self, batch: int) -> None:
        """Start Ray Train's controller ahead of a training, which takes seconds.

        The controller starts the workers, and reserves their CPUs and GPUs, when the training begins.

        Args:
            batch: `Plan.batch` of the training, which the workers share.
        """
        self._trainer = self._trainer or _TrainerThread(self._compute, self._folder, batch)

    def train(self, step: Step, training: Training, on_metrics: MetricsCallback) -> dict[str, Any]:
        """Run a training to its end, from its last checkpoint if one exists, and publish the step.

        Args:
            step: the step of the run; the network is written to its folder.
            training: what the workers do.
            on_metrics: called with the iterations done and the mean metrics since the last call.

        Returns:
            The step's manifest.

        Raises:
            CollapseError: the loss is not finite.
            RunError: the workers failed too often.
            StorageError: storage is full.
        """
        job = Job(
            step.fingerprint,
            training,
            step.folder,
            inherit_checkpoint(self._checkpoints, self._folder, step.fingerprint),
        )
        facts = self._run_with_retries(step, job, on_metrics)
        metrics = step.folder.read_json(METRICS)
        manifest = step.finish(iterations=training.plan.iterations, metrics=metrics, **facts)
        if self._trainer is None or self._trainer.jobs >= self._compute.rounds_per_fit:
            self.close()
        return manifest

    def close(self) -> None:
        """Stop the workers, and delete the checkpoints of finished trainings. Not to be called while a training runs."""
        self._stop_workers()
        self._checkpoints.delete()

    def _stop_workers(self) -> None:
        if self._trainer:
            self._trainer.close()
            self._trainer = None

    def _run_with_retries(self, step: Step, job: Job, on_metrics: MetricsCallback) -> dict[str, Any]:
        """Run a job, with new workers after a failure that Ray Train does not handle itself.

        An elastic pool then starts as many workers as the cluster has resources for.

        Returns:
            `workers`: number of workers that finished the job; `starts`: iterations at which workers started, 0 and those of
            the checkpoints that were resumed from; `iterating_seconds`: time from the last start to the end.
        """
        tries = self._compute.max_failures + 1
        batch = job.training.plan.batch
        earlier_starts: list[int] = []
        while True:
            tries -= 1
            if self._trainer and not self._trainer.is_usable_for(batch):
                self._stop_workers()
            self._trainer = self._trainer or _TrainerThread(self._compute, self._folder, batch)
            try:
                stats = self._trainer.run(job, on_metrics)
                return {"workers": self._trainer.workers, **stats, "starts": [*earlier_starts, *stats["starts"]]}
            except Exception as error:
                earlier_starts += self._trainer.starts()
                self._stop_workers()
                # Ray Train restarts the workers of a pool of fixed size itself, unless its controller died.
                can_retry = self._compute.is_elastic or isinstance(error, RayActorError)
                if not (tries and can_retry) or _user_error(error):
                    raise _as_user_error(error, step) from error


class _TrainerThread:
    """A Ray Train fit in a thread, whose workers run the jobs of a queue."""

    def __init__(self, compute: ComputeConfig, folder: Folder, batch: int) -> None:
        self.jobs = 0
        self._compute = compute
        self._error: Exception | None = None
        placement_groups.remove_orphaned_placement_groups()
        self.workers = choose_now(compute, batch)
        self._queue = _JobQueueActor.options(scheduling_strategy=session.on_this_node()).remote()
        trainer = _trainer(compute, folder, self.workers, self._queue)
        # In the main thread Ray Train would replace the handler of Ctrl-C, for the rest of the process too (Ray 2.60).
        self._thread = threading.Thread(target=self._fit, args=[trainer], daemon=True)
        self._thread.start()

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:
            self._error = error

    def is_usable_for(self, batch: int) -> bool:
        """Return whether the workers can share a batch of this size.

        If they have not started yet, their number must also be the one that would be chosen now.
        """
        return batch % self.workers == 0 and (self.jobs > 0 or self.workers == choose_now(self._compute, batch))

    def run(self, job: Job, on_metrics: MetricsCallback) -> dict[str, Any]:
        """Run a job to its end and return `JobQueue.stats`; raises the error of Ray Train if the workers fail."""
        number, reference = self.jobs, ray.put(job)
        self._queue.put.remote(number, [reference])  # in a list, so that the queue does not fetch the object
        begun = self._queue.wait_until_begun.remote(number)
        finished = self._queue.wait_until_finished.remote(number)
        with (
            forward_progress(self._queue, on_metrics),
            closing(ScaleUpRequest(self._compute, self.workers)) as scale_up,
        ):
            while not ray.wait([finished], timeout=_POLL_S)[0]:
                if not self._thread.is_alive():
                    raise self._error or RunError("the training workers ended before the training did")
                if ray.wait([begun], timeout=0)[0]:
                    scale_up.submit()
        self.jobs += 1
        return dict(ray.get(self._queue.stats.remote()))

    def starts(self) -> list[int]:
        """Return the iterations at which the current job was begun, or none if the queue was lost with its node."""
        with suppress(RayError):
            return list(ray.get(self._queue.stats.remote())["starts"])
        return []

    def close(self) -> None:
        """End the workers. To be called only while they wait for a job, or after they died."""
        with suppress(RayError):  # a queue that was lost with its node has no workers waiting
            ray.get(self._queue.close.remote())
        self._thread.join()
        ray.kill(self._queue)


class _StartBarrier(ControllerCallback):
    """Delays the start of the workers until the queue has a job: until then, no CPUs and GPUs are reserved for them.

    It refuses to start them for a driver that has lost its run to another one.
    """

    def __init__(self, queue: Any, guard: Guard | None) -> None:
        self._queue, self._guard = queue, guard

    def on_controller_start_worker_group(self, *, scaling_config: ScalingConfig, num_workers: int) -> None:
        """Block until the queue has a job. Ray Train's controller calls it before it starts workers."""
        if not ray.get(self._queue.wait_for_first_job.remote()):
            raise RunError("the pool was closed before its first training")
        if self._guard is not None:
            self._guard.check()


class _Trainer(TorchTrainer):
    """`TorchTrainer` without the actor that removes the placement group of a dead controller.

    That actor asks the Ray that started last on the machine whether the controller is alive. If that is another Ray, the actor
    destroys the workers of a training that is running (Ray 2.60). `remove_orphaned_placement_groups` replaces it.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


def _trainer(compute: ComputeConfig, folder: Folder, workers: int, queue: Any) -> TorchTrainer:
    """Return the trainer whose workers run the jobs of the queue.

    Ray Train restarts failed workers itself only in pools of fixed size. `TrainWorkerPool` restarts elastic ones: Ray Train
    would start the same number of workers wherever they fit, even if no CPU remained for their data workers (Ray 2.60).
    """
    failures, controller_failures = (0, 0) if compute.is_elastic else (compute.max_failures, _CONTROLLER_FAILURES)
    return _Trainer(
        _worker_main,
        train_loop_config={"queue": queue},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker={"CPU": compute.cpus_per_worker, **_gpus(compute.gpus_per_worker)},
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=folder.parent.path,
            storage_filesystem=folder.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=failures, controller_failure_limit=controller_failures),
            callbacks=[_StartBarrier(queue, folder.guard)],
        ),
    )


def _gpus(count: float) -> dict[str, float]:
    return {"GPU": count} if count else {}


def _worker_main(config: dict[str, Any]) -> None:
    """Run one job after another in a training worker, until the queue is closed."""
    session.configure_ray_data()
    queue, number, rank = config["queue"], -1, ray.train.get_context().get_world_rank()
    while (entry := ray.get(queue.after.remote(number))) is not None:
        number, (reference,) = entry
        job: Job = ray.get(reference)
        with Patrol(job.target.guard) as patrol:
            train_loop(job, queue.begin.remote, queue.send.remote, patrol.check)
        if rank == 0:
            ray.get(queue.finish.remote(number))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # extraction, which follows, may share the GPU


def _as_user_error(error: Exception, step: Step) -> KplmError:
    """Return an error of one line: the worker's own if it raised one, else the last line of Ray Train's."""
    failure = _failures(error)[0]
    last_line = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    if os.strerror(errno.ENOSPC) in last_line:  # Ray Train failed to write a checkpoint
        return StorageError(f"{step.folder}: {NO_SPACE}")
    return _user_error(error) or RunError(
        f"{step.folder}: training failed: {last_line}; run the same command again to continue"
    )


def _user_error(error: Exception) -> KplmError | None:
    """Return the `KplmError` that a worker raised, if any: a retry would raise it again."""
    return next(filter(None, map(unwrap_user_error, _failures(error))), None)


def _failures(error: Exception) -> list[BaseException]:
    """Return the errors of the workers that a Ray Train error holds, and the error itself."""
    return [*(getattr(error, "worker_failures", None) or {}).values(), error]
