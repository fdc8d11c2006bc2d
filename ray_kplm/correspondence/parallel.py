"""Threads of K-means: blocks of points run in parallel, a single block does not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ray_kplm.correspondence.faiss_import import faiss

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> list[_Result]:
    """Call a function on each item in up to `threads` threads and return the results in order.

    Meanwhile Faiss and NumPy's matrix products run on one thread each. With one thread all runs in the calling thread, as it
    is.
    """
    if threads == 1:
        return [function(item) for item in items]
    with _blas().limit(limits=1, user_api="blas"):
        return list(_pool(threads).map(function, items))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads that is kept: new threads allocate their memory again in every pass, 15 % of its time."""
    one_each = partial(faiss.omp_set_num_threads, 1)  # it sets the thread that calls it
    return ThreadPoolExecutor(threads, thread_name_prefix="kmeans", initializer=one_each)


@functools.cache
def _blas():  # type: ignore[no-untyped-def]
    """Return the control of the loaded BLAS libraries' threads, whose search for libraries takes milliseconds."""
    from threadpoolctl import ThreadpoolController  # the landmark detector assigns on one thread and does without it

    faiss.omp_get_max_threads()  # loads Faiss, which has a BLAS of its own
    return ThreadpoolController()
