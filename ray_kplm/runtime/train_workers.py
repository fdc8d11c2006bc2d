"""Ray Train workers run an objective over a plan, with checkpoints, and leave `network.pt`.

Starting their processes takes longer than a short round. A `TrainWorkerPool` keeps them for several
trainings (compute.rounds_per_fit).
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
from ray_kplm.run import Step
from ray_kplm.runtime import placement_groups, session
from ray_kplm.runtime.job_queue import JobQueue
from ray_kplm.runtime.progress_channel import MetricsCallback, forward_progress
from ray_kplm.runtime.ray_private import ControllerCallback, PlacementGroupCleanerCallback
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.scaling import ScaleUpRequest, choose_now
from ray_kplm.runtime.train_loop import METRICS, Job, Training, train_loop
from ray_kplm.storage import NO_SPACE, Folder

_JobQueueActor: Any = ray.remote(num_cpus=0)(JobQueue)
_RAY_FOLDER = "ray"
_LOOK_S = 1.0
"""Between two looks at whether the workers are still there."""


def train(step: Step, training: Training, on_metrics: MetricsCallback) -> dict[str, Any]:
    """One training with workers of its own, which it lets go: see `TrainWorkerPool.train`."""
    pool = TrainWorkerPool(training.config.compute, step.folder)
    manifest = pool.train(step, training, on_metrics)
    pool.close()
    return manifest


class TrainWorkerPool:
    """Training workers, started when they are needed, for `compute.rounds_per_fit` trainings."""

    def __init__(self, compute: ComputeConfig, folder: Folder) -> None:
        """folder: below it Ray Train keeps the checkpoints of what goes on."""
        self._compute, self._folder = compute, folder / _RAY_FOLDER
        self._fit: _TrainerThread | None = None

    def prepare(self, batch: int) -> None:
        """Start the process that will start the workers, which takes seconds, for a training that comes soon. CPUs and GPUs are
        reserved when it is there. batch: what its workers will share, `Plan.batch`."""
        self._fit = self._fit or _TrainerThread(self._compute, self._folder, batch)

    def train(self, step: Step, training: Training, on_metrics: MetricsCallback) -> dict[str, Any]:
        """Run the training to its end, from its last checkpoint if there is one, and publish the step.

        Raises CollapseError when the loss is no longer finite, RunError when the workers failed for good.
        """
        facts = self._train(step, Job(f"{step.folder.path} {step.fingerprint}", training, step.folder), on_metrics)
        metrics = step.folder.read_json(METRICS)
        manifest = step.finish(iterations=training.plan.iterations, metrics=metrics, **facts)
        if self._fit is None or self._fit.jobs >= self._compute.rounds_per_fit:
            self.close()
        return manifest

    def close(self) -> None:
        """Let the workers go; what they kept of finished trainings is deleted. For pools that are not at work."""
        self._let_go()
        self._folder.delete()

    def _let_go(self) -> None:
        if self._fit:
            self._fit.close()
            self._fit = None

    def _train(self, step: Step, job: Job, on_metrics: MetricsCallback) -> dict[str, Any]:
        """`workers` that did it; `starts`, the iterations at which they began: 0, and the checkpoints that they went on from;
        `iterating_seconds`, from the first batch to the end. Where it is elastic, as many as there is room for then go on."""
        tries = self._compute.max_failures + 1
        batch = job.training.plan.batch
        before: list[int] = []
        while True:
            tries -= 1
            if self._fit and not self._fit.suits(batch):
                self._let_go()
            self._fit = self._fit or _TrainerThread(self._compute, self._folder, batch)
            try:
                facts = self._fit.do(job, on_metrics)
                return {"workers": self._fit.workers, **facts, "starts": [*before, *facts["starts"]]}
            except Exception as error:
                before += self._fit.starts()
                self._let_go()
                # Ray Train itself starts workers again that are not elastic, and is there no more where its controller died.
                for_us = self._compute.is_elastic or isinstance(error, RayActorError)
                if not (tries and for_us) or _user_error(error):
                    raise _as_user_error(error, step) from error


class _TrainerThread:
    """A Ray Train fit, in a thread, whose workers do what the queue gives them."""

    def __init__(self, compute: ComputeConfig, folder: Folder, batch: int) -> None:
        self.jobs = 0
        self._compute = compute
        self._error: Exception | None = None
        placement_groups.remove_orphaned_placement_groups()
        self.workers = choose_now(compute, batch)
        self._queue = _JobQueueActor.options(scheduling_strategy=session.here()).remote()
        trainer = _trainer(compute, folder, self.workers, self._queue)
        # Not in the main thread, where Ray Train would take over Ctrl-C, for all that comes after it too (Ray 2.60).
        self._thread = threading.Thread(target=self._run, args=[trainer], daemon=True)
        self._thread.start()

    def _run(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:
            self._error = error

    def suits(self, batch: int) -> bool:
        """Whether its workers can share the batch, and are as many as they would be now if they have not started."""
        return batch % self.workers == 0 and (self.jobs > 0 or self.workers == choose_now(self._compute, batch))

    def do(self, job: Job, on_metrics: MetricsCallback) -> dict[str, Any]:
        """Returns when the workers have done the job, what the queue knows of it; raises what Ray Train raises when they
        cannot."""
        number, kept = self.jobs, ray.put(job)
        self._queue.put.remote(number, [kept])  # in a list: the queue only passes it on
        begun, finished = self._queue.begun.remote(number), self._queue.finished.remote(number)
        with forward_progress(self._queue, on_metrics), closing(ScaleUpRequest(self._compute, self.workers)) as more:
            while not ray.wait([finished], timeout=_LOOK_S)[0]:
                if not self._thread.is_alive():
                    raise self._error or RunError("the training workers ended before their work did")
                if ray.wait([begun], timeout=0)[0]:
                    more.ask()
        self.jobs += 1
        return dict(ray.get(self._queue.facts.remote()))

    def starts(self) -> list[int]:
        """Iterations at which the newest job was begun so far; none if they are lost with the driver's node."""
        with suppress(RayError):
            return list(ray.get(self._queue.facts.remote())["starts"])
        return []

    def close(self) -> None:
        """Only while the workers wait, or are no more."""
        with suppress(RayError):  # the queue is lost with its node, and no worker can ask it any more
            ray.get(self._queue.close.remote())
        self._thread.join()
        ray.kill(self._queue)


class _StartBarrier(ControllerCallback):
    """Lets workers start when the first job is there: until then their CPUs and GPUs are others'."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def on_controller_start_worker_group(self, *, scaling_config: ScalingConfig, num_workers: int) -> None:
        if not ray.get(self._queue.wanted.remote()):
            raise RunError("the training workers are not wanted any more")


class _Trainer(TorchTrainer):
    """Without the actor that looks whether the controller lives, to remove its placement group else: it asks the Ray that was
    started last on the machine, and if that is another one, the training ends with its workers destroyed (Ray 2.60). The next
    fit gives back what the controller of one left."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


def _trainer(compute: ComputeConfig, folder: Folder, workers: int, queue: Any) -> TorchTrainer:
    """Elastic pools start again by themselves: Ray Train would put the same number of workers wherever they fit, even where no
    CPU is left for their data (Ray 2.60)."""
    failures, no_room = (0, 0) if compute.is_elastic else (compute.max_failures, 2)
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
            failure_config=FailureConfig(max_failures=failures, controller_failure_limit=no_room),
            callbacks=[_StartBarrier(queue)],
        ),
    )


def _gpus(count: float) -> dict[str, float]:
    return {"GPU": count} if count else {}


def _worker_main(config: dict[str, Any]) -> None:
    """One training worker: a job after the other until the queue is closed."""
    session.configure_ray_data()
    queue, last, rank = config["queue"], -1, ray.train.get_context().get_world_rank()
    while (given := ray.get(queue.after.remote(last))) is not None:
        last, (job,) = given
        train_loop(ray.get(job), queue.begin.remote, queue.post.remote)
        if rank == 0:
            ray.get(queue.finish.remote(last))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what extracts next may share the GPU


def _as_user_error(error: Exception, step: Step) -> KplmError:
    """The worker's own message where there is one."""
    failure = _failures(error)[0]
    last = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    if os.strerror(errno.ENOSPC) in last:  # of a checkpoint, which Ray Train writes
        return StorageError(f"{step.folder}: {NO_SPACE}")
    return _user_error(error) or RunError(
        f"{step.folder}: training failed: {last}; run the same command again to continue"
    )


def _user_error(error: Exception) -> KplmError | None:
    """What a worker said in this project's terms, which it would say again."""
    return next(filter(None, map(unwrap_user_error, _failures(error))), None)


def _failures(error: Exception) -> list[BaseException]:
    return [*(getattr(error, "worker_failures", None) or {}).values(), error]
