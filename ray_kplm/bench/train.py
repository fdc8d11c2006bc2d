"""`kplm bench train`: what Ray and the data pipeline cost a training step, and what a second worker gains."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ray_kplm.config import AugmentConfig, Config, from_dict, with_overrides
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.experiments.trial import progress_to
from ray_kplm.imaging.crops import decode_crop, letterbox
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.methods import build_method
from ray_kplm.methods.batch import Views
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
from ray_kplm.storage import Folder

_IMAGES, _POINTS = 400, 15
_KEPT_BATCHES = 8
"""Batches that training from memory goes round in."""
_WARM_SHARE = 0.3
"""Of the iterations, which do not count: caches fill and actors start."""
_ALONE_VIEWS = 400
_GAP_ROUNDS = 4


@dataclass(frozen=True)
class Layout:
    """A training that is timed: its workers, of one thread each, and whether its batches come through the pipeline."""

    workers: int
    piped: bool


def bench(config: Config, iterations: int, progress: ProgressCallback) -> dict[str, Any]:
    """Images a second of stage 1's loop, as configured and with one worker, against the same steps on batches that are in
    memory already; what passes between the trainings of two rounds besides extraction and clustering, by workers that stay
    (compute.rounds_per_fit) and by new ones; and images a second of the data pipeline alone, on one core."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, session(config.compute):
        progress(0.0, f"rendering {_IMAGES} images of {config.network.image_size} px")
        dataset = _dataset(folder, config.network.image_size)
        rates: dict[Layout, float] = {}
        configured = config.compute.worker_range.max
        for workers in sorted({1, 2, configured}):
            for piped in (False, True):
                layout = Layout(workers, piped)
                progress(
                    0.1,
                    f"{iterations} iterations, workers: {workers}, batches from {'the pipeline' if piped else 'memory'}",
                )
                rates[layout] = _rate(_with_workers(config, layout, folder), dataset, layout, iterations)
        gaps = {}
        for kept in (False, True):
            progress(0.7, f"four short rounds, by {'workers that stay' if kept else 'new workers each'}")
            gaps[kept] = _gap(config, dataset, f"{folder}/{'kept' if kept else 'new'}", kept)
        progress(0.9, "the data pipeline alone, on one core")
        alone = data_pipeline(config.augment, config.network.image_size, dataset.images(TRAIN))
    return {
        "loop_images_per_s": rates[Layout(configured, True)],
        "memory_images_per_s": rates[Layout(configured, False)],
        "loop_share": rates[Layout(configured, True)] / rates[Layout(configured, False)],
        "loop_share_1_worker": rates[Layout(1, True)] / rates[Layout(1, False)],
        "speedup_2_workers": rates[Layout(2, False)] / rates[Layout(1, False)],
        "speedup_2_workers_loop": rates[Layout(2, True)] / rates[Layout(1, True)],
        "gap_seconds_kept_workers": gaps[True],
        "gap_seconds_new_workers": gaps[False],
        **alone,
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
) -> Iterator[Views]:
    """The plan's first batches over and over: `steps.feed.feed` without its cost."""
    head = plan.head(min(_KEPT_BATCHES, plan.iterations))
    kept = list(feed(head, images, augment, size, first=0, rank=rank, workers=workers, data_workers=data_workers))
    return islice(cycle(kept), plan.iterations - first)


def _dataset(folder: str, size: int) -> Dataset:
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
    """Images a second, the median after a warm start."""
    method = build_method(config)
    selection = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
    labels = _made_up_labels(selection.images, config)
    plan = method.round_plan(1, labels.usable()).head(iterations)
    told: list[tuple[int, float]] = []
    step = Run.start(config).step("bench", "bench", {}, {})
    training = Training(
        config, method.objective(1), labels, plan, method.round_schedule(1),
        RoundImages.load(dataset.images(TRAIN), selection), None, (0,), feed if layout.piped else in_memory,
    )  # fmt: skip
    train(step, training, lambda done, metrics: told.append((done, metrics["images_per_s"])))
    return float(np.median([rate for done, rate in told if done > _WARM_SHARE * iterations]))


def _gap(config: Config, dataset: Dataset, folder: str, kept: bool) -> float:
    """Seconds from the end of one round's training to the first batch of the next's, and to its end after the last, less those
    of extraction and clustering; the median over the rounds."""
    changes = [
        f"dataset={dataset.root}", f"run={folder}", f"compute.rounds_per_fit={9 if kept else 1}", "keypoints.detector=orb",
        "stage1.warmup_iterations=20", f"stage1.rounds={_GAP_ROUNDS}", "stage1.round_iterations=20", "stage2.iterations=20",
        "limits.min_points_per_image=0", "limits.min_image_share=0",
    ]  # fmt: skip
    run, _ = discover(from_dict(with_overrides(config.to_dict(), changes)), progress_to(ignore_progress))
    ended = [
        (Path(folder) / round_path(n) / "train" / MANIFEST).stat().st_mtime for n in range(_GAP_ROUNDS + 1)
    ]  # the bench's runs are local
    gaps = []
    for number in range(_GAP_ROUNDS):
        labels, train = run.finished(f"{round_path(number)}/labels"), run.finished(f"{round_path(number + 1)}/train")
        work = labels["seconds"] + labels["extraction_seconds"] + train["iterating_seconds"]
        gaps.append(ended[number + 1] - ended[number] - work)
    return float(np.median(gaps))


def _made_up_labels(images: int, config: Config) -> Labels:
    """Points anywhere: what a step costs does not depend on where they are."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, config.network.image_size - 1, (images, _POINTS, 2)).astype(np.float32)
    clusters = rng.integers(0, config.method.clusters, (2, images, _POINTS)).astype(np.int32)
    return Labels(xy, clusters[0], clusters[1], np.ones((images, _POINTS), bool))


def data_pipeline(augment: AugmentConfig, size: int, images: Folder) -> dict[str, float]:
    """Images a second of CPU time in this process: decoding, and decoding and augmenting; and where the time goes."""
    from ray_kplm.imaging.augment import Augmenter

    cv2.setNumThreads(1)
    encoded = images.read_table(images.parts()[0], ["image"])["image"].combine_chunks()
    pictures = [encoded[i % len(encoded)] for i in range(_ALONE_VIEWS)]
    whole, bare = Augmenter(augment, size), Augmenter(replace(augment, warp=0.0), size)
    decoded = [decode_crop(picture) for picture in pictures]
    whole(decoded[0], 0, False)
    bare(decoded[0], 0, False)
    seconds = {
        "decode": _cpu_seconds(lambda i: decode_crop(pictures[i])),
        "scale": _cpu_seconds(lambda i: letterbox(decoded[i], size)),
        "augment": _cpu_seconds(lambda i: bare(decoded[i], i, bool(i % 2))),
        "augment_and_warp": _cpu_seconds(lambda i: whole(decoded[i], i, bool(i % 2))),
        "batch": _cpu_seconds(lambda i: np.stack(decoded[:16]), 50) / 16 * _ALONE_VIEWS / 50,
    }
    total = seconds["decode"] + seconds["augment_and_warp"] + seconds["batch"]
    warp = max(seconds["augment_and_warp"] - seconds["augment"], 0.0) if augment.warp else 0.0
    return {
        "data_images_per_s_per_core": _ALONE_VIEWS / total,
        "decode_images_per_s_per_core": _ALONE_VIEWS / seconds["decode"],
        "data_share_decode": seconds["decode"] / total,
        "data_share_scale": seconds["scale"] / total,
        "data_share_augment": (seconds["augment_and_warp"] - warp - seconds["scale"]) / total,
        "data_share_warp": warp / total,
        "data_share_batch": seconds["batch"] / total,
    }


def _cpu_seconds(call: Callable[[int], object], times: int = _ALONE_VIEWS) -> float:
    began = time.process_time()
    for i in range(times):
        call(i)
    return time.process_time() - began
