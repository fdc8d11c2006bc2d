"""`kplm bench rounds`: what a round and stage 2 read and hold, on datasets of growing size (`round_images`)."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa

from ray_kplm.bench import windows
from ray_kplm.config import load_config
from ray_kplm.datasets.round_sampling import draw_round
from ray_kplm.methods.sampling import AnyImages, pair_plan
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.report.text_table import align
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.session import session
from ray_kplm.storage import Folder

_PART_IMAGES = 500
_IMAGE_BYTES = 2_000
_REPEATS = 3


def bench(
    sizes: list[int], images: int, stage2_sizes: list[int], stage2_iterations: int, progress: ProgressCallback
) -> dict[str, Any]:
    """Measure the preparation of rounds, and iterations of stage 2, on datasets of several sizes.

    Args:
        sizes: Numbers of images of the datasets, ascending.
        images: Number of images of a round.
        stage2_sizes: Numbers of images of the datasets of stage 2, ascending.
        stage2_iterations: Iterations of stage 2.
        progress: Called before each dataset.

    Returns:
        For each dataset the seconds, the number of parts read and the peak memory of drawing the images in KiB; and the ratio
        of the seconds for the last to those for the first dataset. Of stage 2: see `windows.bench`.
    """
    started, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder, session(load_config(None).compute):
        for index, size in enumerate(sizes):
            progress(0.3 * index / len(sizes), f"a dataset of {size} images")
            rows.append({"dataset": size, **_measure(_write(Folder.at(folder) / str(size), size), size, images)})
        stage2 = windows.bench(stage2_sizes, stage2_iterations, part_of(progress, 0.3, 1.0))
    progress(1.0, "all datasets")
    return {
        "rounds": rows,
        **stage2,
        "time_ratio_largest_to_smallest": rows[-1]["seconds"] / rows[0]["seconds"],
        "seconds": time.monotonic() - started,
    }


def lines(results: dict[str, Any]) -> list[str]:
    """Return the results of `bench` as a text table."""
    table = [["dataset", "seconds", "parts read", "memory, KiB"]]
    for row in results["rounds"]:
        seconds, memory = f"{row['seconds']:.3f}", f"{row['draw_peak_kib']:,.0f}"
        table.append([f"{row['dataset']:,} images", seconds, str(row["parts_read"]), memory])
    time_ratio = f"time, largest to smallest: {results['time_ratio_largest_to_smallest']:.2f}"
    return [*align(table), time_ratio, "", *align(windows.table(results))]


def _write(folder: Folder, size: int) -> Folder:
    """Write parts of random bytes in place of encoded images."""
    rng = np.random.default_rng(0)
    for part in range(-(-size // _PART_IMAGES)):
        count = min(_PART_IMAGES, size - part * _PART_IMAGES)
        encoded = [rng.bytes(_IMAGE_BYTES) for _ in range(count)]
        ids = [f"{part}/{i}" for i in range(count)]
        boxes = pa.nulls(count, pa.list_(pa.float32()))
        folder.write_table(f"part-{part:05d}.parquet", pa.table({"image_id": ids, "image": encoded, "box": boxes}))
    return folder


def _measure(folder: Folder, size: int, images: int) -> dict[str, float]:
    """Measure the drawing, loading and planning of a round, as before its training."""
    parts = folder.parts()
    rows = [min(_PART_IMAGES, size - i * _PART_IMAGES) for i in range(len(parts))]
    seconds = []
    for number in range(_REPEATS + 1):
        began = time.perf_counter()
        selection = draw_round(parts, rows, before=number * images, count=images, seed=0)
        loaded = RoundImages.load(folder, selection)
        loaded.fetch(np.arange(selection.images))
        pair_plan(AnyImages(np.arange(selection.images)), iterations=images // 32, pairs=16, flip=True, seed=(0,))
        seconds.append(time.perf_counter() - began)
    tracemalloc.start()
    draw_round(parts, rows, before=0, count=images, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": min(seconds[1:]), "parts_read": len(selection.parts), "draw_peak_kib": peak / 1024}
