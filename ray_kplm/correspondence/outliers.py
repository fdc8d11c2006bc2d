"""Generic keypoints that look like no other (docs/method.md 2, the released code's outlier removal)."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 100
CELLS = 100


class KNNOutlierScore:
    """How far a descriptor is from its neighbours in a seeded, bounded sample of the category's descriptors."""

    def __init__(self, sample: NDArray[np.float32]) -> None:
        """sample: float32 (N, d), unit norm."""
        cells = int(min(CELLS, max(1, len(sample) // 40)))  # faiss wants about 40 points to place a cell
        dim = sample.shape[1]
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, cells)
        self._index.train(sample)
        self._index.add(sample)
        self._index.nprobe = max(1, cells // 20)
        self._neighbours = min(NEIGHBOURS, len(sample))

    def distance(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Median distance to the nearest neighbours: (N,). Large: an outlier."""
        if not len(descriptors):
            return np.zeros(0, np.float32)
        squared, index = self._index.search(np.ascontiguousarray(descriptors), self._neighbours)
        squared = np.where(index >= 0, squared, np.nan)  # a probed cell can hold fewer than asked for
        return np.sqrt(np.nanmedian(np.maximum(squared, 0), axis=1)).astype(np.float32)
