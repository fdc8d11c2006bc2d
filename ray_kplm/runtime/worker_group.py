"""A group of training workers: one Ray Train fit in a thread, whose workers run the jobs of a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import RunError
from ray_kplm.runtime import placement_groups, session
from ray_kplm.runtime.job_queue import JobQueue
from ray_kplm.runtime.progress_channel import MetricsCallback, forward_progress
from ray_kplm.runtime.ray_private import ControllerCallback, PlacementGroupCleanerCallback
from ray_kplm.runtime.scaling import ScaleUpRequest, choose_now
from ray_kplm.runtime.train_loop import Job
from ray_kplm.runtime.worker_jobs import MapJob, ShardsJob, worker_main
from ray_kplm.storage import Folder, Guard

_JobQueueActor: Any = ray.remote(num_cpus=0)(JobQueue)
POLL_S = 1.0
"""Interval at which the driver checks that the workers are alive."""
_CONTROLLER_FAILURES = 2
"""Times that Ray Train tries again to start a group of workers for which no resources are free."""


class WorkerGroup:
    """A Ray Train fit in a thread, whose workers run the jobs of a queue."""

    def __init__(self, compute: ComputeConfig, folder: Folder, batch: int) -> None:
        self.jobs = self.trainings = 0
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

    def train(self, job: Job, on_metrics: MetricsCallback) -> dict[str, Any]:
        """Run a training to its end and return `JobQueue.stats`; raises the error of Ray Train if the workers fail."""
        number = self._put(job)
        begun = self._queue.wait_until_begun.remote(number)
        with (
            forward_progress(self._queue, on_metrics),
            closing(ScaleUpRequest(self._compute, self.workers)) as scale_up,
        ):
            for _ in self._waiting(self._queue.wait_until_finished.remote(number)):
                if ray.wait([begun], timeout=0)[0]:
                    scale_up.submit()
        self._done(number)
        self.trainings += 1
        return dict(ray.get(self._queue.stats.remote()))

    def map(self, job: MapJob, on_done: Callable[[int], None]) -> None:
        """Work on the parts of a map, whose results are then in `map_results`.

        Args:
            job: the map.
            on_done: called with the number of parts that are done.

        Raises:
            KplmError: raised by a worker for a part.
            Exception: that of Ray Train if the workers fail.
        """
        number = self._put(job, len(job.parts))
        with forward_progress(self._queue, lambda done, _: on_done(done)):
            for _ in self._waiting(self._queue.wait_until_finished.remote(number)):
                pass
        self._done(number)
        if (error := ray.get(self._queue.results.remote())[1]) is not None:
            raise error

    def map_results(self) -> dict[int, dict[str, Any]]:
        """Return the results of the last map by the numbers of its parts; none if the queue was lost with its node."""
        with suppress(RayError):
            results: dict[int, dict[str, Any]] = ray.get(self._queue.results.remote())[0]
            return results
        return {}

    @contextmanager
    def shards(self, job: ShardsJob) -> Iterator[Any]:
        """Let the workers hold shards while the block runs; yields the queue, by which they are called."""
        number = self._put(job)
        try:
            yield self._queue
        finally:
            with suppress(RayError):
                ray.get(self._queue.finish.remote(number))
            self._done(number)

    def failure(self) -> Exception | None:
        """Return the error of Ray Train if the workers have failed for good."""
        if self._thread.is_alive():
            return None
        return self._error or RunError("the workers ended before their work did")

    def _put(self, job: Job | MapJob | ShardsJob, parts: int = 0) -> int:
        """Make a job the current one, and return its number."""
        # In a list, so that the queue does not fetch the object.
        self._queue.put.remote(self.jobs, [ray.put(job)], parts)
        return self.jobs

    def _done(self, number: int) -> None:
        self.jobs = number + 1

    def _waiting(self, reference: ray.ObjectRef) -> Iterator[None]:
        """Yield every `POLL_S` until the reference is ready; raises the error of Ray Train if the workers fail."""
        while not ray.wait([reference], timeout=POLL_S)[0]:
            if (error := self.failure()) is not None:
                raise error
            yield

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
        worker_main,
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
