"""Outliers among generic keypoints: keypoints unlike all others (docs/method.md 2, the released code's rule)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.faiss_import import faiss

NEIGHBOURS = 100
"""Nearest neighbours of which the median distance is taken."""
CELLS = 100
"""Most cells of the inverted file index."""


class KNNOutlierScore:
    """The distance of descriptors to their nearest neighbours in a seeded, bounded sample of the category's descriptors."""

    def __init__(self, sample: NDArray[np.float32]) -> None:
        """Build the index of the sample.

        Args:
            sample: (N, d), unit norm.
        """
        cells = int(min(CELLS, max(1, len(sample) // 40)))  # faiss wants about 40 points to place a cell
        dim = sample.shape[1]
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, cells)
        self._index.train(sample)
        self._index.add(sample)
        self._index.nprobe = max(1, cells // 20)
        self._neighbours = min(NEIGHBOURS, len(sample))

    def distance(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the median distance to the nearest neighbours, (N,), which is large for an outlier."""
        if not len(descriptors):
            return np.zeros(0, np.float32)
        squared, index = self._index.search(np.ascontiguousarray(descriptors), self._neighbours)
        squared = np.where(index >= 0, squared, np.nan)  # the probed cells can hold fewer than asked for
        median: NDArray[np.float32] = np.sqrt(np.nanmedian(np.maximum(squared, 0), axis=1)).astype(np.float32)
        return median
