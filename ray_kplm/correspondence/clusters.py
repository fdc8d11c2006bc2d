"""Storage of clusters: `clusters.npz`, the arrays of a pseudo-label update that later rounds and steps read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import load_arrays

CLUSTERS = "clusters.npz"


def write_clusters(folder: Folder, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of an update (`methods.base.ClusteringResult.arrays`) to `clusters.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy declares its keywords as bool
    folder.write_bytes(CLUSTERS, buffer.getvalue())


def read_clusters(folder: Folder) -> dict[str, NDArray[Any]]:
    """Return the arrays of a folder's `clusters.npz` by name."""
    with folder.parsing(CLUSTERS):
        return load_arrays(folder.read_bytes(CLUSTERS))
