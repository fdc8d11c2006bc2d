"""Join a Ray cluster, or start a local one; configure Ray Data in each process that builds a dataset."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.data import DataContext, ExecutionResources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ClusterError
from ray_kplm.notes import waiting
from ray_kplm.runtime.local_ray import start_local_ray
from ray_kplm.runtime.ray_private import ExecutionCallback, memory_summary

ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # importing albumentations queries a package index otherwise
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.3",  # `ray.train.report` blocks until the controller polls (Ray 2.60)
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # processes that reserve no GPU see those of their node
    "PYTHONWARNINGS": "ignore",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray Data logs an error for each pool of actors (Ray issue 53727)
    # Keep the memory that a training step frees: the next step allocates the same amounts again.
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}
"""Environment of every process of a run."""
LOCAL = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # saves a process per training; a local node is never preempted
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # after a short pause tasks reuse processes, not start them
    "RAY_enable_metrics_collection": "0",  # unused here, and the metrics of datasets accumulate: 3 MiB a round (Ray 2.60)
}
"""Environment of a local Ray. On a cluster, `cluster.yaml` and `jobs/Containerfile` set the second when a node starts."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Default limit of a Ray Data pipeline in the object store; `data_pipeline.object_store_limit` raises it."""
DEFAULT_SCHEDULING = "DEFAULT"
"""Scheduling strategy of tasks that reserve CPUs. Without it, the tasks of a Ray Tune trial would have to fit into the trial's
placement group, which reserves almost no CPU."""

_STORAGE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Location of an object store. Credentials are not passed on: Ray's dashboard shows the runtime environment of a job."""
_LOG_LEVELS = {"ray.data": logging.CRITICAL, "ray.train": logging.ERROR, "ray.tune": logging.ERROR}
"""Ray Data both raises and logs an error: the log, with its traceback, would repeat the message."""
_CONNECT_TIMEOUT_S = 15
_SCHEDULER_PERIOD_S = 0.03
"""Least time between two steps of Ray Data's scheduler: far shorter than a task that makes a block of views."""
_NO_PROGRESS_TIMEOUT_S = 300
"""A Ray Data pipeline that makes no progress for this long raises an error. Ray Data's default waits 30 minutes (Ray 2.60)."""


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Return the strategy that places a task or an actor on this node and no other.

    It is a hard affinity: Ray ignores a soft one for actors that reserve no resources (Ray 2.60).
    """
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return the strategy that places an actor on the caller's node: the loss of another node does not stop it."""
    return on_node(ray.get_runtime_context().get_node_id())


@contextlib.contextmanager
def session(compute: ComputeConfig, runs: int = 1) -> Iterator[None]:
    """Provide a Ray session: this process's, the cluster at RAY_ADDRESS, or a local Ray that ends with the block.

    Args:
        compute: layout of a run. It decides the logical CPUs of a local Ray.
        runs: number of runs with this layout that execute at the same time.

    Raises:
        ClusterError: no Ray cluster answers at RAY_ADDRESS, or a local Ray does not start.
    """
    if ray.is_initialized():
        configure_ray_data()
        yield
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _silent_stderr() as console, _handler_kept(signal.SIGTERM):
        if os.environ.get("RAY_ADDRESS"):
            with waiting(f"kplm: joining Ray at {os.environ['RAY_ADDRESS']} ...", descriptor=console):
                _join_cluster(quiet)
        else:  # the processes of a local Ray inherit the environment, and start faster without a runtime_env
            for name, value in LOCAL.items():
                os.environ.setdefault(name, value)
            cpus = max(os.cpu_count() or 1, needed_cpus(compute, runs), kept_cpus(compute, runs))
            start_local_ray(console, num_cpus=cpus, include_dashboard=False, **quiet)
    configure_ray_data()
    _warn_if_too_small(compute, runs)
    try:
        yield
    finally:
        ray.shutdown()


def _join_cluster(options: dict[str, Any]) -> None:
    """Call `ray.init` with these options for the cluster at RAY_ADDRESS; raises ClusterError if that fails."""
    address = os.environ["RAY_ADDRESS"]
    try:
        _check_reachable(address)
        ray.init(**options, runtime_env={"env_vars": _worker_environment()})
    except (OSError, RuntimeError, ValueError) as error:
        cause = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[-1]
        raise ClusterError(
            f"RAY_ADDRESS={address}: cannot join a Ray cluster ({cause}): give the address of its head as host:port, and its "
            "token if it requires one (RAY_AUTH_MODE=token); or unset RAY_ADDRESS to start a local Ray"
        ) from error


def _check_reachable(address: str) -> None:
    """Connect to the address once; raises OSError if that fails.

    `ray.init` itself retries for five minutes and reports that only on stderr (Ray 2.60).
    """
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _worker_environment() -> dict[str, str]:
    """Return the environment variables of the workers on a cluster: `ENVIRONMENT`, and the location of storage.

    Variables of the job's own runtime_env are left out: Ray refuses names that both set (Ray 2.60).
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    set_by_job = (job.get("runtime_env") or {}).get("env_vars") or {}
    storage = {name: os.environ[name] for name in _STORAGE_VARIABLES if name in os.environ}
    return {name: value for name, value in {**ENVIRONMENT, **storage}.items() if name not in set_by_job}


@contextlib.contextmanager
def _handler_kept(number: signal.Signals) -> Iterator[None]:
    """Restore a signal's handler after the block, if the program has one: Ray replaces that of SIGTERM."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[int]:
    """Discard stderr: Ray's C++ code writes its log level there while it starts. Errors are raised as exceptions.

    Yields a descriptor of what stderr was before.
    """
    sys.stderr.flush()
    stderr_copy = os.dup(2)
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, 2)
    try:
        yield stderr_copy
    finally:
        os.dup2(stderr_copy, 2)
        os.close(stderr_copy)
        os.close(null_device)


def _warn_if_too_small(compute: ComputeConfig, runs: int) -> None:
    """Print a warning if the cluster has too few CPUs or GPUs: the first step will wait until nodes join."""
    cpus, needed = int(ray.cluster_resources().get("CPU", 0)), needed_cpus(compute, runs)
    if cpus < needed:
        print(
            f"kplm: the cluster has {cpus} CPUs and the run needs {needed} (workers x (CPUs + data workers) + 1): it waits "
            f"until nodes join; otherwise lower compute.workers or start Ray with --num-cpus={needed}",
            file=sys.stderr,
        )
    gpus = ray.cluster_resources().get("GPU", 0)
    needed_gpus = compute.worker_range.min * compute.gpus_per_worker
    if gpus < needed_gpus:
        print(
            f"kplm: the cluster has {gpus:g} GPUs and the run needs {needed_gpus:g} (workers x compute.gpus_per_worker): it "
            f"waits until nodes join; otherwise lower compute.workers, or train on CPUs with compute.gpus_per_worker=0",
            file=sys.stderr,
        )


def needed_cpus(compute: ComputeConfig, runs: int = 1) -> int:
    """Return the logical CPUs that runs of this layout need at least.

    They are those of the smallest number of training workers, those of their data workers, and one more: without it Ray Data
    cannot start a task beside the training workers.
    """
    return int(runs * compute.worker_range.min * (compute.cpus_per_worker + compute.data_workers)) + 1


def kept_cpus(compute: ComputeConfig, runs: int) -> int:
    """Return the logical CPUs with which training workers of a fixed number stay while features are extracted beside them.

    Workers that wait take no time of a core.
    """
    workers = compute.worker_range.min + compute.extract_workers
    return math.ceil(runs * workers * compute.cpus_per_worker) + 1


def object_store_mib() -> float:
    """Return the memory that the cluster's object stores use now, in MiB; NaN if Ray does not report it."""
    summary = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    usage = re.search(r"Plasma memory usage (\d+(?:\.\d+)?) MiB", summary)
    return float(usage.group(1)) if usage else float("nan")


class _SchedulerThrottle(ExecutionCallback):
    """Limits how often Ray Data's scheduler makes a step.

    When the output buffer of a pipeline is full, the scheduler polls without a pause. In a training worker it then held the
    interpreter lock for 98 % of the time, and iterations took three times as long (Ray 2.60). A step that has waited for a task
    is followed by the next one at once, so that a core which has finished a task soon has another.
    """

    def __init__(self) -> None:
        self._last = 0.0

    def on_execution_step(self, executor: object) -> None:
        """Sleep for the rest of `_SCHEDULER_PERIOD_S`. Ray Data calls it after each step of its scheduler."""
        time.sleep(max(0.0, self._last + _SCHEDULER_PERIOD_S - time.monotonic()))
        self._last = time.monotonic()


def configure_ray_data() -> None:
    """Set this process's `DataContext`: rows in order, no log output, a memory limit and a timeout.

    Every process that builds a dataset calls it: a `DataContext` is local to its process.
    """
    context = DataContext.get_current()
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=OBJECT_STORE_BYTES)
    if _SchedulerThrottle not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_SchedulerThrottle)
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = False
    if hasattr(context, "execution_no_progress_timeout_s"):
        context.execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    context.print_on_execution_start = False
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
