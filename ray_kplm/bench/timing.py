"""Timing of functions, in this process or in others with a given number of threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

REPEATS = 3
"""Number of timed calls, of which the fastest counts."""


def fastest(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of `REPEATS` calls, after one call that is not timed."""
    call()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def in_new_process(threads: int, function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function in a new process whose libraries use the given number of threads."""
    with process_pool(1, threads) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def process_pool(count: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of processes whose libraries use the given number of threads."""
    environment = dict(os.environ)
    os.environ.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    try:
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        os.environ.clear()
        os.environ.update(environment)
