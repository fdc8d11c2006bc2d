"""The names that this package imports from Ray's private modules.

Private modules change without notice, so `pyproject.toml` allows one minor version of Ray. When that bound is raised,
`tests/runtime/test_ray_private.py` names what was removed or changed. Each name is imported on first use: a process that needs
one of them does not load Ray Train for it.
"""

from __future__ import annotations

import importlib
from typing import Any

HOMES = {
    "memory_summary": "ray._private.internal_api",
    "state": "ray._private.state",
    "get_ray_address_file": "ray._private.utils",
    "Cluster": "ray.cluster_utils",
    "PlacementGroupTableData": "ray.core.generated.gcs_pb2",
    "ExecutionCallback": "ray.data._internal.execution.execution_callback",
    "PlacementGroupCleanerCallback": "ray.train.v2._internal.callbacks.placement_group_callback",
    "ControllerCallback": "ray.train.v2._internal.execution.callback",
}
"""Each name, and the module of Ray that defines it."""


def __getattr__(name: str) -> Any:
    """Import one of the names in `HOMES`."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
