"""Threads of K-means: results in order, each on one thread of BLAS."""

import threading

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ray_kplm.correspondence.parallel import in_threads


@pytest.mark.parametrize("threads", [1, 3])
def test_results_are_in_order(threads):
    assert in_threads(lambda item: 2 * item, range(50), threads) == list(range(0, 100, 2))


def test_items_run_at_the_same_time_on_threads_that_are_kept():
    meet = threading.Barrier(3, timeout=20)

    def wait(item):
        meet.wait()
        return threading.get_ident()

    assert set(in_threads(wait, range(3), 3)) == set(in_threads(wait, range(3), 3))


def test_one_thread_is_the_callers():
    assert in_threads(lambda item: threading.get_ident(), range(3), 1) == [threading.get_ident()] * 3


def test_products_of_numpy_and_faiss_run_on_one_thread_meanwhile():
    def threads(item=None):
        np.ones((2, 2)) @ np.ones((2, 2))
        numpy_threads = {pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]}
        return numpy_threads, faiss.omp_get_max_threads()  # that of the calling thread, which Faiss' BLAS follows

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        with threadpool_limits(2, "blas"):
            assert in_threads(threads, range(2), 2) == [({1}, 1), ({1}, 1)]
            assert threads() == ({2}, 2)
    finally:
        faiss.omp_set_num_threads(before)


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 / item, range(3), 2)
