"""Measures what processes cost on this machine, for `kplm bench scale`: one start of each kind, and the driver's work.

A start is timed as it happens in a round: the workers of the next training start while the features are clustered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.bench.kmeans_speed import IMAGE_POINTS, write_features
from ray_kplm.bench.train import random_labels
from ray_kplm.config import Config, from_dict, with_overrides
from ray_kplm.correspondence.features import feature_parts
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.methods import build_method
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.parts import Pool
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import Run
from ray_kplm.runtime.data_pipeline import feed
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.kmeans_actors import ActorShards, cluster_with_actors
from ray_kplm.runtime.map_parts import map_parts
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.train_workers import TrainWorkerPool
from ray_kplm.steps.extract import extract
from ray_kplm.steps.extract_part import Extraction
from ray_kplm.storage import Folder

_ITERATIONS, _IMAGES = 2, 8
"""Iterations of a training, and images of an extraction, whose time is all start."""
_PARTS, _CALLS = 200, 30
"""Parts of a map without work, and calls to a shard."""


def start_rates(config: Config, images: Folder, folder: Folder, progress: ProgressCallback) -> dict[str, float]:
    """Return the seconds of the starts of a run's processes, of a part of a map, and of a call to a shard.

    Args:
        config: The run's, with its layout on this machine.
        images: A folder of images, as of `scale_measure.render_images`.
        folder: An empty folder.
        progress: Called before each measurement.
    """
    part = images.parts()[0]
    some = Selection([part], [np.arange(min(_IMAGES, len(images.read_table(part, ["image_id"]))))])
    keep = from_dict(
        with_overrides(config.to_dict(), [f"run={folder / 'run'}", "compute.rounds_per_fit=2", *_NO_LIMITS])
    )
    run = Run.start(keep)
    workers, trained = TrainWorkerPool(run.resolved.compute, run.folder), []

    def train(number: int) -> float:
        step, training = run.step(f"train{number}", "bench", {}, {}), _training(run.resolved, images, some)
        began = time.perf_counter()
        manifest = workers.train(step, training, lambda done, metrics: None)
        trained.append(step.folder)
        return time.perf_counter() - began - float(manifest["iterating_seconds"])

    progress(0.0, "a clustering beside which training workers start")
    workers.prepare(keep.stage1.batch_size)
    clustering = [_clustering_start(keep, folder / f"clustering{number}") for number in range(2)]
    progress(0.3, "a training by new workers, and another one by the same")
    first, following = train(0), train(1)
    workers.close()
    progress(0.7, "extraction by new workers, and by the same")
    maps = [_extraction_start(keep, trained[0], images, some, folder / f"features{number}") for number in range(3)]
    progress(0.9, f"a map of {_PARTS} parts without work")
    return {
        "train_start": first,
        "train_next": max(following, 1e-3),
        "map_start": maps[0],
        "map_next": min(maps[1:]),
        "cluster_start": clustering[-1],
        "part": _part_seconds(),
        "call": _call_seconds(keep, folder / "called"),
    }


_NO_LIMITS = ["limits.min_points_per_image=0", "limits.min_image_share=0", "method.drop_static=no"]
"""Overrides with which a clustering of noise does not end a run."""


def _training(config: Config, images: Folder, some: Selection) -> Training:
    """Return a training of two iterations."""
    method = build_method(config)
    labels = random_labels(some.images, config)
    plan = method.round_plan(1, labels.usable()).head(_ITERATIONS)
    return Training(
        config,
        method.objective(1),
        labels,
        plan,
        method.round_schedule(1),
        RoundImages.load(images, some),
        None,
        (0,),
        feed,
    )


def _clustering_start(config: Config, folder: Folder) -> float:
    """Return the seconds of a clustering of as few descriptors as there are clusters."""
    shards = max(config.compute.shards, 1)
    points = 4 * max(config.method.clusters, config.method.landmarks)
    part_images = max(1, points // (2 * IMAGE_POINTS * shards))
    write_features(folder / "features", points, config.network.descriptor_dim, part_images=part_images)
    method, parts = build_method(config), feature_parts(folder / "features")
    began = time.perf_counter()
    cluster_with_actors(folder / "features", parts, folder / "labels", folder, method, 1)
    return time.perf_counter() - began


def _extraction_start(config: Config, network: Folder, images: Folder, some: Selection, features: Folder) -> float:
    """Return the seconds of an extraction of a few images."""
    assert network.is_file(NETWORK)
    work = Extraction(build_method(config), 1, network, images, some, 1.0, features)
    began = time.perf_counter()
    extract(work, some)
    return time.perf_counter() - began


class _NoWork:
    """A worker of a map that does nothing."""

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        return {"rows": len(rows)}


def _part_seconds() -> float:
    """Return the driver's seconds for a part of a map."""

    def seconds(parts: int) -> float:
        chosen = Selection([f"part-{i:05d}.parquet" for i in range(parts)], [np.arange(1)] * parts)
        return _seconds(lambda: map_parts(_NoWork, {}, chosen, Pool(8, cpus=0.1)))

    seconds(1)
    return max((seconds(_PARTS) - seconds(1)) / (_PARTS - 1), 1e-5)


def _call_seconds(config: Config, folder: Folder) -> float:
    """Return the median seconds of a call to the shards."""
    write_features(folder, 2 * IMAGE_POINTS, config.network.descriptor_dim)
    shards = ActorShards(config, folder, feature_parts(folder))
    try:
        return float(np.median([_seconds(lambda: shards.ask("peak_mib")) for _ in range(_CALLS)]))
    finally:
        shards.close()


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
