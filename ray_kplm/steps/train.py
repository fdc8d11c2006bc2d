"""The training step: Ray Train workers run an objective over a plan, with checkpoints, and leave `network.pt`."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, ControllerError, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

from ray_kplm.config import Config
from ray_kplm.errors import CollapseError, KplmError, RunError
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.learner import NETWORK, Learner, Objective, Schedule
from ray_kplm.methods.plan import Plan
from ray_kplm.methods.views import Views
from ray_kplm.network.compute import Placement
from ray_kplm.run import Step
from ray_kplm.steps import session
from ray_kplm.steps.elastic import workers_of
from ray_kplm.steps.feed import feed
from ray_kplm.steps.images import RoundImages
from ray_kplm.steps.progress import Listener, listening
from ray_kplm.storage import Folder

_RAY_FOLDER = "ray"
_METRICS = "metrics.json"
_REPORT_EVERY = 10
"""Iterations over which metrics are averaged before they are sent."""


@dataclass(frozen=True)
class Training:
    """All a worker needs for a training step."""

    config: Config
    objective: Objective
    make_labels: Callable[[], Labels]
    """Reads the labels where the worker runs."""
    plan: Plan
    schedule: Schedule
    images: RoundImages
    start: tuple[Folder, str] | None
    """Where the network to start from lies, and how it is used: `continue` (weights and optimiser) or `head` (stage 2)."""
    seed: tuple[int, ...]
    views: Callable[..., Iterator[Views]] = feed
    """Makes the plan's batches."""


def train(step: Step, training: Training, listener: Listener) -> dict[str, Any]:
    """Run the training to its end, from its last checkpoint if there is one, and publish the step.

    Raises CollapseError when the loss is no longer finite, RunError when the workers failed for good.
    """
    plan = training.plan
    with listening(listener) as board:
        workers = _fit(step, training, board)
    metrics = step.folder.read_json(_METRICS)
    manifest = step.finish(iterations=plan.iterations, workers=workers, metrics=metrics)
    (step.folder / _RAY_FOLDER).delete()
    return manifest


def _fit(step: Step, training: Training, board: Any) -> int:
    """Train to the end; the number of workers that did. Where it is elastic and their nodes do not come back, others go on."""
    compute, plan = training.config.compute, training.plan
    tries = compute.max_failures + 1 if compute.is_elastic else 1
    while True:
        tries -= 1
        with workers_of(compute, plan.views // plan.group) as workers:
            try:
                _trainer(step, training, board, workers).fit()
                return workers
            except Exception as error:
                if not isinstance(error, ControllerError) or not tries:
                    raise _as_user_error(error, step) from error


def _trainer(step: Step, training: Training, board: Any, workers: int) -> TorchTrainer:
    compute = training.config.compute
    again = 0 if compute.is_elastic else 2  # when workers find no room
    return TorchTrainer(
        _work,
        train_loop_config={"training": training, "target": step.folder, "board": board},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker={"CPU": compute.cpus_per_worker, **_gpus(compute.gpus_per_worker)},
        ),
        run_config=RunConfig(
            name=_RAY_FOLDER,
            storage_path=step.folder.path,
            storage_filesystem=step.folder.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=compute.max_failures, controller_failure_limit=again),
        ),
    )


def _gpus(count: float) -> dict[str, float]:
    return {"GPU": count} if count else {}


def _as_user_error(error: Exception, step: Step) -> KplmError:
    """The worker's own message where there is one."""
    failures = getattr(error, "worker_failures", {}) or {}
    for failure in [*failures.values(), error]:
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, KplmError):
                return type(cause)(str(cause))
            cause = getattr(cause, "cause", None) or cause.__cause__
        if "CollapseError" in str(failure):
            return CollapseError(str(failure).strip().splitlines()[-1].split("CollapseError: ")[-1])
    last = str(next(iter(failures.values()), error)).strip().splitlines()[-1]
    return RunError(f"{step.folder}: training failed: {last}; run the same command again to continue")


def _work(loop: dict[str, Any]) -> None:
    """One training worker."""
    session.settle()
    training: Training = loop["training"]
    config, context = training.config, ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    _limit_threads(config, context.get_local_world_size())
    device = ray.train.torch.get_device()
    placement = Placement.choose(config.compute, device)
    wrap = (lambda network: prepare_model(network, move_to_device=False)) if workers > 1 else (lambda network: network)
    learner = Learner(training.objective, training.make_labels(), training.schedule, placement, training.seed, wrap)
    first = _resume(learner, training)
    views = training.views(
        training.plan,
        training.images,
        config.augment,
        config.network.image_size,
        first=first,
        rank=rank,
        workers=workers,
        actors=config.compute.data_actors,
    )
    recent: list[dict[str, torch.Tensor]] = []
    metrics: dict[str, float] = {}
    last, told = training.plan.iterations, _Pace(first)
    for iteration, batch in enumerate(views, start=first):
        recent.append(learner.step(iteration, rank, batch))
        done = iteration + 1
        if done % _REPORT_EVERY == 0 or done == last:
            metrics, recent = _averaged(recent), []
            _check(metrics, done)
            if rank == 0:
                rate = told.since(done) * training.plan.views
                loop["board"].post.remote(done, {**metrics, "images_per_s": rate})
        if done % config.compute.checkpoint_iterations == 0 and done < last:
            _checkpoint(learner, done, rank, metrics)
    if rank == 0:
        target: Folder = loop["target"]
        target.write_json(_METRICS, metrics)  # Ray Train keeps what is reported with a checkpoint only
        target.write_bytes(NETWORK, learner.state())


class _Pace:
    """Iterations a second since the last look. Told to the driver and kept nowhere: a run that is repeated has the same
    metrics."""

    def __init__(self, iteration: int) -> None:
        self._iteration, self._time = iteration, time.perf_counter()

    def since(self, iteration: int) -> float:
        iterations, seconds = iteration - self._iteration, time.perf_counter() - self._time
        self._iteration, self._time = iteration, time.perf_counter()
        return iterations / max(seconds, 1e-9)


def _resume(learner: Learner, training: Training) -> int:
    """Load the step's own last checkpoint, or the network that the step starts from. Returns the first iteration to do."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.restore((Path(folder) / "state.pt").read_bytes())
            return int((Path(folder) / "iteration").read_text())
    if training.start is not None:
        folder, use = training.start
        state = folder.read_bytes(NETWORK)
        learner.restore(state) if use == "continue" else learner.start_from(state)
    return 0


def _checkpoint(learner: Learner, iteration: int, rank: int, metrics: dict[str, float]) -> None:
    report = {**metrics, "iteration": iteration}
    if rank != 0:
        ray.train.report(report)
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "state.pt").write_bytes(learner.state())
        (Path(folder) / "iteration").write_text(str(iteration))
        ray.train.report(report, checkpoint=Checkpoint.from_directory(folder))


def _averaged(recent: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Means over the iterations since the last report and over the workers: every rank gets the same numbers."""
    names = sorted(recent[0])
    mean = torch.stack([torch.stack([parts[name].float() for name in names]) for parts in recent]).mean(0)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return dict(zip(names, mean.tolist(), strict=True))


def _check(metrics: dict[str, float], iteration: int) -> None:
    """Stop on all ranks at once: `metrics` are the same everywhere."""
    if not math.isfinite(metrics["loss"]):
        raise CollapseError(
            f"the loss is {metrics['loss']} at iteration {iteration}: it must stay finite; lower the learning rate or set "
            f"compute.precision=fp32"
        )


def _limit_threads(config: Config, local_workers: int) -> None:
    """All workers of a machine together must not have more threads than it has cores."""
    torch.set_num_threads(config.compute.threads or max(1, (os.cpu_count() or 1) // local_workers))
