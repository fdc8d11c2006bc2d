"""`clusters.npz`: what an update of the pseudo-labels found, for the rounds and the steps that follow."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ray_kplm.storage import Folder

CLUSTERS = "clusters.npz"


def write_clusters(folder: Folder, arrays: Mapping[str, NDArray]) -> None:
    """Write the arrays of an update (`methods.base.ClusteringResult.arrays`) to `clusters.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its keywords are arrays
    folder.write_bytes(CLUSTERS, buffer.getvalue())


def read_clusters(folder: Folder) -> dict[str, NDArray]:
    """Return the arrays of a folder's `clusters.npz` by their names."""
    with np.load(io.BytesIO(folder.read_bytes(CLUSTERS))) as arrays:
        return {name: arrays[name] for name in arrays.files}
