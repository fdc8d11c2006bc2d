"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.data import DataContext, ExecutionResources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ClusterError
from ray_kplm.runtime.ray_private import ExecutionCallback, memory_summary

ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # its import asks a package index for news
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.3",  # a report blocks until the controller has polled
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray Data itself causes an error line for every actor pool (ray issue 53727)
    "MALLOC_MMAP_THRESHOLD_": "1073741824",  # keep what a training step frees: the next one asks for the same again
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}
LOCAL = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process each training: nobody preempts us
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # or tasks after a pause of a second wait for new processes
    "RAY_enable_metrics_collection": "0",  # nobody reads them, and each dataset adds some that stay: 3 MiB a round (Ray 2.60)
}
"""For a Ray of our own. On a cluster whoever starts its nodes sets the second: `cluster.yaml`, `jobs/Containerfile`."""
_STORAGE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Where an object store is. Keys to it do not travel: a runtime environment is shown in Ray's dashboard."""
_PAUSE_S = 0.03
"""Between two looks of Ray Data's scheduler: far less than a block of views lasts."""
AHEAD_BYTES = 256 * 2**20
"""Object store that a pipeline may fill ahead of its consumer, where it does not know better (`feed.ahead_bytes`)."""
_LOGGED = {"ray.data": logging.CRITICAL, "ray.train": logging.ERROR, "ray.tune": logging.ERROR}
"""Ray Data logs the errors that it raises too, with their traces."""
_ANSWER_S = 15
"""Within which the head of a cluster takes a connection."""
_STALL_S = 300
"""A Ray Data pipeline without progress for this long raises instead of waiting."""

ANYWHERE = "DEFAULT"
"""Scheduling strategy of tasks that reserve CPUs. Said explicitly, or those that a trial of Ray Tune starts would have to find
room within what the trial itself reserves, which is next to nothing."""


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    """On this node and no other. A soft wish is not heard for actors that reserve nothing: they go anywhere (Ray 2.60)."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def here() -> NodeAffinitySchedulingStrategy:
    """On the node of this process, with which it would be lost anyway."""
    return on_node(ray.get_runtime_context().get_node_id())


@contextlib.contextmanager
def session(compute: ComputeConfig, runs: int = 1) -> Iterator[None]:
    """A Ray to work with: the one this process is in, the cluster of RAY_ADDRESS, or a local one that ends with the block.

    runs: how many of this layout go on at once.

    Raises ClusterError where no Ray answers at RAY_ADDRESS.
    """
    if ray.is_initialized():
        configure_ray_data()
        yield
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _silent_stderr():
        if os.environ.get("RAY_ADDRESS"):
            _join(quiet)
        else:  # a local Ray's processes inherit the environment, and start faster without a runtime_env
            for name, value in LOCAL.items():
                os.environ.setdefault(name, value)
            cpus = max(os.cpu_count() or 1, needed_cpus(compute, runs))
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    configure_ray_data()
    _warn_if_small(compute, runs)
    try:
        yield
    finally:
        ray.shutdown()


def _join(quiet: dict[str, Any]) -> None:
    address = os.environ["RAY_ADDRESS"]
    try:
        _check_reachable(address)
        ray.init(**quiet, runtime_env={"env_vars": _for_workers()})
    except (OSError, RuntimeError, ValueError) as error:
        why = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[-1]
        raise ClusterError(
            f"RAY_ADDRESS={address}: cannot join a Ray there ({why}): give the address of its head, as host:port, and its "
            "token where it has one (RAY_AUTH_MODE=token); or unset RAY_ADDRESS for a Ray of this command's own"
        ) from error


def _check_reachable(address: str) -> None:
    """OSError where nobody listens: Ray itself goes on trying for five minutes, and says so only on stderr."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


def _for_workers() -> dict[str, str]:
    """Environment of the workers of a cluster: ours, and where storage is. Ray refuses what the job's runtime_env names too."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    given = (job.get("runtime_env") or {}).get("env_vars") or {}
    storage = {name: os.environ[name] for name in _STORAGE if name in os.environ}
    return {name: value for name, value in {**ENVIRONMENT, **storage}.items() if name not in given}


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's C++ side announces its log level there while it starts; errors come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _warn_if_small(compute: ComputeConfig, runs: int) -> None:
    """An existing cluster may be too small, or may be about to grow: say so, since the first step will wait."""
    there, needed = int(ray.cluster_resources().get("CPU", 0)), needed_cpus(compute, runs)
    if there < needed:
        print(
            f"kplm: the cluster has {there} CPUs and the run wants {needed} (workers x (CPUs + data workers) + 1): it waits "
            f"until nodes join; else lower compute.workers or start Ray with --num-cpus={needed}",
            file=sys.stderr,
        )
    extracting = 1 if compute.rounds_per_fit > 1 else 0  # beside workers that keep theirs
    gpus, wanted = (
        ray.cluster_resources().get("GPU", 0),
        (compute.worker_range.min + extracting) * compute.gpus_per_worker,
    )
    if gpus < wanted:
        workers = "(workers + 1, as compute.rounds_per_fit keeps them)" if extracting else "workers"
        print(
            f"kplm: the cluster has {gpus:g} GPUs and the run wants {wanted:g} ({workers} x compute.gpus_per_worker): it waits "
            f"until nodes join; else lower compute.workers, or train on CPUs with compute.gpus_per_worker=0",
            file=sys.stderr,
        )


class _SchedulerThrottle(ExecutionCallback):
    """Pauses Ray Data's scheduler between its steps.

    While finished tasks wait for room ahead of the consumer, the scheduler spins; in a training worker it held the
    interpreter's lock 98 % of the time and made iterations three times as long (Ray 2.60).
    """

    def on_execution_step(self, executor: object) -> None:
        time.sleep(_PAUSE_S)


def needed_cpus(compute: ComputeConfig, runs: int = 1) -> int:
    """Logical CPUs without which Ray Data starves beside the training workers: theirs, their data workers' and one."""
    return int(runs * compute.worker_range.min * (compute.cpus_per_worker + compute.data_workers)) + 1


def object_store_mib() -> float:
    """What the cluster's object stores hold now, MiB."""
    summary = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    found = re.search(r"Plasma memory usage (\d+(?:\.\d+)?) MiB", summary)
    return float(found.group(1)) if found else float("nan")


def configure_ray_data() -> None:
    """Ray Data as this project uses it, in whichever process builds a dataset: in order, quiet, bounded, never hanging."""
    context = DataContext.get_current()
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=AHEAD_BYTES)
    if _SchedulerThrottle not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_SchedulerThrottle)
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = False
    if hasattr(context, "execution_no_progress_timeout_s"):
        context.execution_no_progress_timeout_s = _STALL_S
    context.print_on_execution_start = False
    for name, level in _LOGGED.items():
        logging.getLogger(name).setLevel(level)
