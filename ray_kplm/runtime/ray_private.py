"""Every name that this project takes from Ray's private modules, and where it lies.

Private modules change without notice, so `pyproject.toml` admits one minor version of Ray. When that bound is lifted,
`tests/runtime/test_ray_private.py` names what went and what changed. A name is imported when it is first used: a process that
only needs one of them does not load Ray Train for it.
"""

from __future__ import annotations

import importlib
from typing import Any

HOMES = {
    "memory_summary": "ray._private.internal_api",
    "state": "ray._private.state",
    "node": "ray._private",
    "services": "ray._private",
    "get_default_ray_temp_dir": "ray._common.utils",
    "get_ray_address_file": "ray._private.utils",
    "Cluster": "ray.cluster_utils",
    "PlacementGroupTableData": "ray.core.generated.gcs_pb2",
    "ExecutionCallback": "ray.data._internal.execution.execution_callback",
    "PlacementGroupCleanerCallback": "ray.train.v2._internal.callbacks.placement_group_callback",
    "ControllerCallback": "ray.train.v2._internal.execution.callback",
}
"""Name -> module of Ray."""


def __getattr__(name: str) -> Any:
    """Import one of `HOMES` when it is asked for."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
