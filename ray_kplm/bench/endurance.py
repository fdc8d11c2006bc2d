"""`kplm bench endurance`: many short rounds in one process, whose memory, files and processes must not grow."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ray_kplm.bench.resources import sample_resources
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.experiments.trial import progress_to
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.pipeline import discover
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.session import session
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
    """Measure the resources after each round of a run.

    The resources are memory, open files and threads of this process, memory and number of its Ray processes, and the object
    store. Memory is private memory, without the pages of the object store that a process has touched.

    Args:
        rounds: Number of rounds after the warm-up.
        rounds_per_fit: Number of rounds by the same training workers.
        progress: Called ten times with the resources.

    Returns:
        For each resource its mean over the second and over the last tenth of the rounds, and the growth between these.
    """
    started = time.monotonic()
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="kplm-endurance-") as folder:
        write_category(Path(folder) / "images", _IMAGES, size=64, test_share=0.2)
        changes = [
            f"dataset={folder}/dataset",
            f"run={folder}/run",
            f"stage1.rounds={rounds}",
            f"compute.rounds_per_fit={rounds_per_fit}",
        ]
        config = load_config(None, [*_CONFIG, *changes])

        def after_round(discovery: object, number: int) -> None:
            samples.append(sample_resources())
            if number % max(1, rounds // 10) == 0:
                resources = ", ".join(f"{name} {value:,.0f}" for name, value in samples[-1].items())
                progress(number / rounds, f"round {number} of {rounds}: {resources}")

        with session(config.compute):
            ingest(f"{folder}/images", f"{folder}/dataset", IngestOptions(part_images=20))
            discover(config, progress_to(ignore_progress), after_round=after_round)
    return {"rounds": rounds, **_growth(samples), "seconds": time.monotonic() - started}


def _growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """Compare the second and the last tenth of the samples; caches fill in the first tenth."""
    tenth = max(1, len(samples) // 10)
    early, late = samples[tenth : 2 * tenth] or samples[:1], samples[-tenth:]
    growth: dict[str, float] = {}
    for name in samples[0]:
        first, last = (float(np.mean([sample[name] for sample in group])) for group in (early, late))
        growth |= {f"{name}_early": first, f"{name}_late": last, f"{name}_growth": last - first}
    return growth
