"""`kplm bench rounds`: what a round reads and remembers, on datasets of growing size (`round_images`)."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa

from ray_kplm.config import load
from ray_kplm.datasets.round_sampling import draw_round
from ray_kplm.methods.sampling import AnyImages, pair_plan
from ray_kplm.progress import ProgressCallback
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.session import session
from ray_kplm.storage import Folder

_PART_IMAGES = 500
_IMAGE_BYTES = 2_000
_REPEATS = 3


def bench(sizes: list[int], images: int, progress: ProgressCallback) -> dict[str, Any]:
    """Rounds of `images` images from tables of `sizes` rows: seconds, parts read, and the driver's peak memory."""
    started, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder, session(load(None).compute):
        for size in sizes:
            progress(sizes.index(size) / len(sizes), f"a table of {size} images")
            rows.append({"dataset": size, **_round(_table(Folder.at(folder) / str(size), size), size, images)})
    return {
        "rounds": rows,
        "time_ratio_largest_to_smallest": rows[-1]["seconds"] / rows[0]["seconds"],
        "seconds": time.monotonic() - started,
    }


def _table(folder: Folder, size: int) -> Folder:
    """Parts of made-up encoded images."""
    rng = np.random.default_rng(0)
    for part in range(-(-size // _PART_IMAGES)):
        count = min(_PART_IMAGES, size - part * _PART_IMAGES)
        encoded = [rng.bytes(_IMAGE_BYTES) for _ in range(count)]
        ids = [f"{part}/{i}" for i in range(count)]
        folder.write_table(f"part-{part:05d}.parquet", pa.table({"image_id": ids, "image": encoded}))
    return folder


def _round(folder: Folder, size: int, images: int) -> dict[str, float]:
    """Draw, read and plan a round, as `steps.discovery` does before it trains."""
    parts = folder.parts()
    rows = [min(_PART_IMAGES, size - i * _PART_IMAGES) for i in range(len(parts))]
    taken = []
    for number in range(_REPEATS + 1):
        began = time.perf_counter()
        selection = draw_round(parts, rows, before=number * images, count=images, seed=0)
        loaded = RoundImages.load(folder, selection)
        loaded.wait()
        pair_plan(AnyImages(np.arange(selection.images)), iterations=images // 32, pairs=16, flip=True, seed=(0,))
        taken.append(time.perf_counter() - began)
    tracemalloc.start()
    draw_round(parts, rows, before=0, count=images, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": min(taken[1:]), "parts_read": len(selection.parts), "draw_peak_kib": peak / 1024}
