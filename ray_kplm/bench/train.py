"""`kplm bench train`: the cost of Ray and of the data pipeline in a training step, and the gain of a second worker."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from ray_kplm.config import AugmentConfig, Config, from_dict, with_overrides
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.experiments.trial import progress_to
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.methods import build_method
from ray_kplm.methods.batch import Views
from ray_kplm.methods.device_views import DeviceViews
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.sampling import Plan
from ray_kplm.pipeline import discover
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import MANIFEST, Run, round_path
from ray_kplm.runtime.data_pipeline import feed
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.session import session
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.train_workers import train
from ray_kplm.schemas import TRAIN
from ray_kplm.steps.ingest import ingest

_IMAGES, _POINTS = 400, 15
"""Number of rendered images, and of keypoints in each."""
_CYCLE_BATCHES = 8
"""Number of batches over which training from memory cycles."""
_WARM_SHARE = 0.3
"""Share of the iterations at the start that are not timed: caches fill and actors start."""
_GAP_ROUNDS = 4
"""Number of rounds over which the time between rounds is measured."""


@dataclass(frozen=True)
class Layout:
    """A training that is timed: its number of workers, of one thread each, and whether batches come from the pipeline."""

    workers: int
    piped: bool


def bench(config: Config, iterations: int, progress: ProgressCallback) -> dict[str, Any]:
    """Measure the training loop of stage 1.

    Args:
        config: The configuration to train with; its dataset and run are not used.
        iterations: Number of iterations of each training.
        progress: Called before each measurement.

    Returns:
        Images per second of the loop as configured, and of the same steps on batches in memory; ratios of these for one and
        two workers; the seconds between the trainings of two rounds besides extraction and clustering, with workers that
        are kept (`compute.rounds_per_fit`) and with new ones.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, session(config.compute):
        progress(0.0, f"rendering {_IMAGES} images of {config.network.image_size} px")
        dataset = rendered_dataset(folder, config.network.image_size)
        rates: dict[Layout, float] = {}
        configured = config.compute.worker_range.max
        layouts = [Layout(workers, piped) for workers in sorted({1, 2, configured}) for piped in (False, True)]
        for index, layout in enumerate(layouts):
            origin = "the pipeline" if layout.piped else "memory"
            text = f"{iterations} iterations, workers: {layout.workers}, batches from {origin}"
            progress(0.1 + 0.5 * index / len(layouts), text)
            rates[layout] = _rate(_with_workers(config, layout, folder), dataset, layout, iterations)
        gaps = {}
        for share, kept in ((0.6, False), (0.75, True)):
            progress(
                share, f"{_GAP_ROUNDS} short rounds, {'with the same workers' if kept else 'with new workers each'}"
            )
            gaps[kept] = _gap(config, dataset, f"{folder}/{'kept' if kept else 'new'}", kept)
    progress(1.0, "all measurements")
    return {
        "loop_images_per_s": rates[Layout(configured, True)],
        "memory_images_per_s": rates[Layout(configured, False)],
        "loop_share": rates[Layout(configured, True)] / rates[Layout(configured, False)],
        "loop_share_1_worker": rates[Layout(1, True)] / rates[Layout(1, False)],
        "speedup_2_workers": rates[Layout(2, False)] / rates[Layout(1, False)],
        "speedup_2_workers_loop": rates[Layout(2, True)] / rates[Layout(1, True)],
        "gap_seconds_kept_workers": gaps[True],
        "gap_seconds_new_workers": gaps[False],
        "seconds": time.monotonic() - started,
    }


def in_memory(
    plan: Plan,
    images: RoundImages,
    augment: AugmentConfig,
    size: int,
    *,
    first: int,
    rank: int,
    workers: int,
    data_workers: int,
    device_views: DeviceViews | None = None,
) -> Iterator[Views]:
    """Yield the plan's first batches repeatedly: `runtime.data_pipeline.feed` without its cost.

    The arguments are those of `feed`.
    """
    head = plan.head(min(_CYCLE_BATCHES, plan.iterations))
    share = {"rank": rank, "workers": workers, "data_workers": data_workers}
    batches = list(feed(head, images, augment, size, first=0, device_views=device_views, **share))
    return islice(cycle(batches), plan.iterations - first)


def rendered_dataset(folder: str, size: int) -> Dataset:
    """Render images and ingest them. Ray must be initialised."""
    write_category(f"{folder}/images", _IMAGES, size=size)
    ingest(f"{folder}/images", f"{folder}/dataset", IngestOptions(part_images=100))
    return Dataset.open(f"{folder}/dataset")


def _with_workers(config: Config, layout: Layout, folder: str) -> Config:
    changes = [
        f"run={folder}/{layout.workers}-{'piped' if layout.piped else 'memory'}",
        f"compute.workers={layout.workers}",
        "compute.threads=1",
        "compute.checkpoint_iterations=100000",
    ]
    return from_dict(with_overrides(config.to_dict(), changes))


def _rate(config: Config, dataset: Dataset, layout: Layout, iterations: int) -> float:
    """Return the median of the images per second, after the first iterations."""
    method = build_method(config)
    selection = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
    labels = random_labels(selection.images, config)
    plan = method.round_plan(1, labels.usable()).head(iterations)
    rates: list[tuple[int, float]] = []
    step = Run.start(config).step("bench", "bench", {}, {})
    training = Training(
        config, method.objective(1), labels, plan, method.round_schedule(1),
        RoundImages.load(dataset.images(TRAIN), selection), None, (0,), feed if layout.piped else in_memory,
    )  # fmt: skip
    train(step, training, lambda done, metrics: rates.append((done, metrics["images_per_s"])))
    return float(np.median([rate for done, rate in rates if done > _WARM_SHARE * iterations]))


def _gap(config: Config, dataset: Dataset, folder: str, kept: bool) -> float:
    """Return the median over rounds of the seconds between two trainings, besides extraction and clustering.

    They are the time from the end of one round's training to the end of the next one's, less that of its iterations, of the
    extraction and of the clustering.
    """
    changes = [
        f"dataset={dataset.root}", f"run={folder}", f"compute.rounds_per_fit={9 if kept else 1}", "keypoints.detector=orb",
        "stage1.warmup_iterations=20", f"stage1.rounds={_GAP_ROUNDS}", "stage1.round_iterations=20", "stage2.iterations=20",
        "limits.min_points_per_image=0", "limits.min_image_share=0",
    ]  # fmt: skip
    run, _ = discover(from_dict(with_overrides(config.to_dict(), changes)), progress_to(ignore_progress))
    manifests = [Path(folder) / round_path(number) / "train" / MANIFEST for number in range(_GAP_ROUNDS + 1)]
    ended = [manifest.stat().st_mtime for manifest in manifests]
    gaps = []
    for number in range(_GAP_ROUNDS):
        labels, train = run.finished(f"{round_path(number)}/labels"), run.finished(f"{round_path(number + 1)}/train")
        work = labels["seconds"] + labels["extraction_seconds"] + train["iterating_seconds"]
        gaps.append(ended[number + 1] - ended[number] - work)
    return float(np.median(gaps))


def random_labels(images: int, config: Config) -> Labels:
    """Return labels at random positions, on which the cost of a step does not depend."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, config.network.image_size - 1, (images, _POINTS, 2)).astype(np.float32)
    clusters = rng.integers(0, config.method.clusters, (2, images, _POINTS)).astype(np.int32)
    return Labels(xy, clusters[0], clusters[1], np.ones((images, _POINTS), bool))
