"""What this process and its Ray use: memory, files, threads, processes, the object store."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from ray_kplm.runtime.session import object_store_mib

_EVERY_S = 0.5
"""Pause between the samples of `peaks`."""


def sample_resources() -> dict[str, float]:
    """Return the resources in use now."""
    process = psutil.Process()
    children = [child for child in process.children(recursive=True) if _is_ray(child)]
    memory = [_private_mib(child) for child in children]
    return {
        "driver_mib": _private_mib(process),
        "driver_files": process.num_fds(),
        "driver_threads": process.num_threads(),
        "ray_processes": len(children),
        "ray_processes_mib": sum(memory),
        "process_mib": max(memory, default=0.0),
        "object_store_mib": object_store_mib(),
        "shared_memory_files": len(os.listdir("/dev/shm")),
    }


def _is_ray(process: psutil.Process) -> bool:
    try:
        return bool(process.name().startswith("ray::"))
    except psutil.Error:  # the process has ended
        return False


def _private_mib(process: psutil.Process) -> float:
    try:
        memory = process.memory_info()
    except psutil.Error:  # the process has ended
        return 0.0
    return float(memory.rss - memory.shared) / 2**20


@contextmanager
def peaks() -> Iterator[dict[str, float]]:
    """Yield the largest value of each resource during the block, which is complete at its end."""
    found, ended = sample_resources(), threading.Event()

    def look() -> None:
        for name, value in sample_resources().items():
            found[name] = max(found[name], value)

    def watch() -> None:
        while not ended.wait(_EVERY_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
