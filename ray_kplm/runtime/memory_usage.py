"""Memory that a process allocates."""

from __future__ import annotations

import resource
import sys

import psutil


class MemoryUsage:
    """Memory that this process allocates after the object is created."""

    def __init__(self) -> None:
        self._start = psutil.Process().memory_info().rss

    def peak_mib(self) -> float:
        """Return the peak resident memory above that at the start, in MiB."""
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(round((peak - self._start) / 2**20, 1))
