"""The training loop of a Ray Train worker: steps over a data plan, with checkpoints, that end in `network.pt`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import ray.train
import torch
from ray.train.torch import prepare_model
from torch import nn

from ray_kplm.config import Config
from ray_kplm.errors import CollapseError
from ray_kplm.methods.batch import Views
from ray_kplm.methods.device_views import DeviceViews
from ray_kplm.methods.labels import CarriedLabels, Labels
from ray_kplm.methods.sampling import Plan
from ray_kplm.methods.trainer import NETWORK, Learner, Objective, Schedule
from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.network import distributed
from ray_kplm.network.compute import Placement
from ray_kplm.runtime.checkpoint_writer import CheckpointWriter
from ray_kplm.runtime.checkpoints import read_checkpoint
from ray_kplm.runtime.data_pipeline import feed
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.window_store import WindowImages
from ray_kplm.storage import Folder

METRICS = "metrics.json"
"""Last metrics of a training, in the folder of its step."""
_METRICS_EVERY = 10
"""Iterations over which metrics are averaged before they are sent."""


@dataclass(frozen=True)
class Training:
    """Everything that a worker needs for a training."""

    config: Config
    objective: Objective
    labels: Labels | CarriedLabels
    """Read once, by the driver. The workers of a node share the arrays, read-only, in its object store."""
    plan: Plan | WindowPlan
    schedule: Schedule
    images: RoundImages | WindowImages
    start: tuple[Folder, str] | None
    """Folder of the network to start from, and how: `continue` with its optimiser, or `head`, its weights with a new head."""
    seed: tuple[int, ...]
    """Decides initial weights and random negatives."""
    views: Callable[..., Iterator[Views]] = feed
    """Yields the plan's batches; called like `feed`."""


@dataclass(frozen=True)
class Job:
    """A training for the workers of a Ray Train fit, which may run several one after another."""

    name: str
    """Fingerprint of the step. A checkpoint of another job is not resumed from."""
    training: Training
    target: Folder
    """Where the network and its metrics are written."""
    inherited: Folder | None = None
    """A checkpoint of this job that another driver left; used while there is no own one."""


def train_loop(
    job: Job,
    on_begin: Callable[[int], object],
    on_metrics: Callable[[int, dict[str, float]], object],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Train to the end, from the job's last checkpoint if one exists. Called in every worker of a Ray Train fit.

    Args:
        job: the training.
        on_begin: called on rank 0 with the first iteration, when its batch is ready.
        on_metrics: called on rank 0 with the iterations done and the mean metrics since the last call.
        check: called before each iteration; it raises if the training must not go on.

    Raises:
        CollapseError: the loss is not finite.
    """
    training = job.training
    config, context = training.config, ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    _limit_threads(config, context.get_local_world_size())
    device = ray.train.torch.get_device()
    placement = Placement.choose(config.compute, device)
    wrap = partial(_distributed, compiled=placement.compiled) if workers > 1 else lambda network: network
    learner = Learner(training.objective, training.labels, training.schedule, placement, training.seed, wrap)
    first = _resume(learner, job)
    size = config.network.image_size
    views = training.views(
        training.plan,
        training.images,
        config.augment,
        size,
        first=first,
        rank=rank,
        workers=workers,
        data_workers=config.compute.data_workers,
        device_views=DeviceViews(config.augment, size, device) if device.type == "cuda" else None,
    )
    recent: list[dict[str, torch.Tensor]] = []
    metrics: dict[str, float] = {}
    last, throughput = training.plan.iterations, Throughput(first)
    checkpoints = CheckpointWriter(job.name, rank)
    for iteration, batch in enumerate(views, start=first):
        check()
        checkpoints.check()
        if rank == 0 and iteration == first:
            on_begin(first)
        recent.append(learner.step(iteration, batch))
        done = iteration + 1
        if done % _METRICS_EVERY == 0 or done == last:
            metrics, recent = _mean_metrics(recent), []
            _check_finite(metrics, done)
            if rank == 0:
                rate = throughput.since(done) * training.plan.views
                on_metrics(done, {**metrics, "images_per_s": rate})
        if done % config.compute.checkpoint_iterations == 0 and done < last:
            checkpoints.write(learner.freeze, done, metrics)
    checkpoints.wait()
    if rank == 0:
        job.target.write_json(METRICS, metrics)  # Ray Train keeps only metrics that are reported with a checkpoint
        job.target.write_bytes(NETWORK, learner.state())


def _distributed(network: nn.Module, compiled: bool) -> nn.Module:
    """Wrap the network for distributed training; batch norms take their statistics over all workers.

    PyTorch synchronises batch norms on GPUs only, and the configuration allows them with several workers only there.
    """
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    options = distributed.PARALLEL_COMPILED if compiled else distributed.PARALLEL
    wrapped: nn.Module = prepare_model(synchronised, move_to_device=False, parallel_strategy_kwargs=options)
    return wrapped


class Throughput:
    """Iterations per second between calls.

    The driver shows it, but it is not stored: the stored metrics of a repeated run are equal.
    """

    def __init__(self, iteration: int) -> None:
        self._iteration, self._time = iteration, time.perf_counter()

    def since(self, iteration: int) -> float:
        """Return the iterations per second since the last call, or since creation, up to this iteration."""
        iterations, seconds = iteration - self._iteration, time.perf_counter() - self._time
        self._iteration, self._time = iteration, time.perf_counter()
        return iterations / max(seconds, 1e-9)


def _resume(learner: Learner, job: Job) -> int:
    """Load the job's last checkpoint, or the network that it starts from; return the first iteration to do."""
    checkpoint, training = ray.train.get_checkpoint(), job.training
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            found = read_checkpoint(Folder.at(folder), job.name, str(job.target))
        if found is not None:
            learner.restore(found.state)
            return found.iteration
    if job.inherited is not None and (found := read_checkpoint(job.inherited, job.name, str(job.target))) is not None:
        learner.restore(found.state)
        return found.iteration
    if training.start is not None:
        folder, use = training.start
        state = folder.read_bytes(NETWORK)
        learner.restore(state) if use == "continue" else learner.start_from(state)
    return 0


def _mean_metrics(recent: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Return the means over the given iterations and over all workers: the same numbers on every rank."""
    names = sorted(recent[0])
    own = torch.stack([torch.stack([parts[name].float() for name in names]) for parts in recent]).mean(0)
    mean = distributed.sum_over_ranks(own) / distributed.world_size()
    return dict(zip(names, mean.tolist(), strict=True))


def _check_finite(metrics: dict[str, float], iteration: int) -> None:
    """Raise CollapseError if the loss is not finite: on all ranks at once, since their metrics are equal."""
    if not math.isfinite(metrics["loss"]):
        raise CollapseError(
            f"the loss is {metrics['loss']} at iteration {iteration}: it must stay finite; lower the learning rate or set "
            f"compute.precision=fp32"
        )


def _limit_threads(config: Config, local_workers: int) -> None:
    """Set PyTorch's threads, so that the workers of a node together have no more than it has cores."""
    torch.set_num_threads(config.compute.threads or max(1, (os.cpu_count() or 1) // local_workers))
