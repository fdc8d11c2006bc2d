"""`kplm bench soak`: many short rounds in one process; what it holds must not grow."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.experiments.trial import progress_to
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.pipeline import discover
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.session import object_store_mib, session
from ray_kplm.steps.ingest import ingest

_IMAGES = 60
_CONFIG = [
    "network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=16",
    "keypoints.detector=orb", "keypoints.limit=20", "method.landmarks=5", "method.clusters=12",
    "stage1.warmup_iterations=40", "stage1.round_iterations=5", "stage1.batch_size=4", "stage1.learning_rate=1e-3",
    "stage2.iterations=10", "stage2.batch_size=4", "clustering.n_init=2", "compute.threads=1",
    "limits.min_points_per_image=0", "limits.min_image_share=0",
]  # fmt: skip


def bench(rounds: int, rounds_per_fit: int, progress: ProgressCallback) -> dict[str, Any]:
    """After each round: memory, open files and threads of this process, memory and number of its Ray processes, and the object
    store. Memory is a process's own, without the pages of the object store that it has touched. Of each the mean of the second
    and of the last tenth of the rounds, and how much it grew by."""
    started = time.monotonic()
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="kplm-soak-") as folder:
        write_category(Path(folder) / "images", _IMAGES, size=64, test_share=0.2)
        changes = [
            f"dataset={folder}/dataset",
            f"run={folder}/run",
            f"stage1.rounds={rounds}",
            f"compute.rounds_per_fit={rounds_per_fit}",
        ]
        config = load_config(None, [*_CONFIG, *changes])

        def after_round(discovery: object, number: int) -> None:
            samples.append(_sample())
            if number % max(1, rounds // 10) == 0:
                figures = ", ".join(f"{name} {value:,.0f}" for name, value in samples[-1].items())
                progress(number / rounds, f"round {number} of {rounds}: {figures}")

        with session(config.compute):
            ingest(f"{folder}/images", f"{folder}/dataset", IngestOptions(part_images=20))
            discover(config, progress_to(ignore_progress), after_round=after_round)
    return {"rounds": rounds, **_growth(samples), "seconds": time.monotonic() - started}


def _sample() -> dict[str, float]:
    process = psutil.Process()
    children = [child for child in process.children(recursive=True) if _is_ray(child)]
    return {
        "driver_mib": _private_mib(process),
        "driver_files": process.num_fds(),
        "driver_threads": process.num_threads(),
        "ray_processes": len(children),
        "ray_processes_mib": sum(map(_private_mib, children)),
        "object_store_mib": object_store_mib(),
        "shared_memory_files": len(os.listdir("/dev/shm")),
    }


def _is_ray(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("ray::")
    except psutil.Error:  # it has just ended
        return False


def _private_mib(process: psutil.Process) -> float:
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - memory.shared) / 2**20


def _growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """The first tenth is left out: caches fill."""
    tenth = max(1, len(samples) // 10)
    early, late = samples[tenth : 2 * tenth] or samples[:1], samples[-tenth:]
    found: dict[str, float] = {}
    for name in samples[0]:
        first, last = (float(np.mean([s[name] for s in group])) for group in (early, late))
        found |= {f"{name}_early": first, f"{name}_late": last, f"{name}_growth": last - first}
    return found
