"""Where a command works: in this process, which starts at once, or in a Ray session."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ray_kplm.extras import check_installed

if TYPE_CHECKING:
    from ray_kplm.config import ComputeConfig
    from ray_kplm.parts import Workers

_CLUSTER = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")
"""Environment of a command that is to work on a cluster: the cluster's address, and what Ray sets in a submitted job."""


@contextlib.contextmanager
def workers_for(compute: ComputeConfig) -> Iterator[Workers]:
    """Provide the workers of a prediction: this process, unless there is a cluster or several workers have GPUs.

    Several workers without GPUs are no reason to start Ray: this process has the threads of all.

    Raises:
        ConfigError: Ray is needed and not installed.
        ClusterError: as `runtime.session.session`.
    """
    from ray_kplm.parts import ThisProcess

    several_gpus = compute.gpus_per_worker > 0 and compute.extract_workers > 1
    if not several_gpus and not any(os.environ.get(name) for name in _CLUSTER):
        yield ThisProcess()
        return
    check_installed("ray")
    from ray_kplm.runtime.map_parts import RayWorkers
    from ray_kplm.runtime.session import session

    with session(compute):
        yield RayWorkers()
