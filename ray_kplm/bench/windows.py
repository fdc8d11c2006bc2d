"""The second half of `kplm bench rounds`: what stage 2 reads and holds, on datasets of growing size in a slow object store."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ray_kplm import schemas
from ray_kplm.bench.resources import peaks
from ray_kplm.bench.slow_store import SlowStore, slow_store
from ray_kplm.config import AugmentConfig
from ray_kplm.correspondence.features import ragged, ragged_points
from ray_kplm.datasets.round_sampling import draw_round
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.progress import ProgressCallback
from ray_kplm.runtime.session import configure_ray_data
from ray_kplm.runtime.tasks import run_task
from ray_kplm.runtime.window_feed import feed_windows
from ray_kplm.runtime.window_store import LabelledParts, WindowImages
from ray_kplm.steps.train_landmarks import labels_of_part
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import CheckedFolder

_PART_IMAGES = 500
_LANDMARKS = 5
_SIDE = 32
_BATCH = 32


def bench(sizes: list[int], iterations: int, progress: ProgressCallback) -> dict[str, Any]:
    """Measure some iterations of stage 2 on all images of datasets of several sizes. Ray must be initialised.

    Each part is the same file of small images: requests and memory depend on the number of parts, not on their content.

    Args:
        sizes: Numbers of images of the datasets, ascending.
        iterations: Of a batch of 32 views each.
        progress: Called before each dataset.

    Returns:
        For each dataset the requests of these iterations with 30 ms each, those of parts of tables among them, and the bytes;
        the peak memory of this process, of the largest of its Ray processes and of the object store in MiB; and the ratios of
        all these for the largest to those for the smallest. Each process reads the manifests too, whose bytes grow with the
        number of parts.
    """
    rows = []
    for index, size in enumerate(sizes):
        progress(index / len(sizes), f"stage 2 on {size} images")
        with tempfile.TemporaryDirectory() as folder:
            # Under a name of its own: a process reads the manifest of a folder once.
            _write(Folder.at(folder) / str(size), size)
            with slow_store(folder) as store:
                rows.append({"dataset": size, **_measure(store, size, iterations)})
    ratios = {
        f"{name}_largest_to_smallest": rows[-1][name] / max(rows[0][name], 1)
        for name in ("requests", "part_requests", "bytes", "driver_mib", "process_mib", "object_store_mib")
    }
    return {"stage2": rows, **{f"stage2_{name}": ratio for name, ratio in ratios.items()}}


def table(results: dict[str, Any]) -> list[list[str]]:
    """Return the results of `bench` as the rows of a table."""
    found = [
        ["stage 2", "requests", "of parts", "MB read", "driver, MiB", "largest process", "object store", "seconds"]
    ]
    for row in results["stage2"]:
        memory = [f"{row[name]:,.0f}" for name in ("driver_mib", "process_mib", "object_store_mib")]
        counts = [f"{row[name]:,}" for name in ("requests", "part_requests")]
        numbers = [*counts, f"{row['bytes'] / 1e6:.1f}", *memory, f"{row['seconds']:.1f}"]
        found.append([f"{row['dataset']:,} images", *numbers])
    return found


def _write(root: Folder, size: int) -> None:
    """Write a dataset and its labels, whose parts are one file under many names."""
    rng = np.random.default_rng(0)
    encoded = [
        cv2.imencode(".png", rng.integers(0, 256, (8, 8, 3), np.uint8))[1].tobytes() for _ in range(_PART_IMAGES)
    ]
    ids, counts = [str(i) for i in range(_PART_IMAGES)], np.full(_PART_IMAGES, _LANDMARKS)
    landmark = ragged(np.tile(np.arange(_LANDMARKS, dtype=np.int16), _PART_IMAGES), counts)
    points = ragged_points(rng.uniform(0, 8, (counts.sum(), 2)), counts)
    score = ragged(np.ones(counts.sum(), np.float32), counts)
    labels = pa.Table.from_arrays([ids, points, score, landmark, landmark, landmark], schema=schemas.LABELS)
    boxes = pa.nulls(_PART_IMAGES, pa.list_(pa.float32()))
    names = [f"part-{part:05d}.parquet" for part in range(size // _PART_IMAGES)]
    for unit, content in (("images", pa.table({"image_id": ids, "image": encoded, "box": boxes})), ("labels", labels)):
        folder = CheckedFolder.of(root / unit, "")
        folder.write_table(names[0], content)
        record = folder.record(names[0])
        assert record is not None
        for name in names[1:]:
            os.link(f"{folder.path}/{names[0]}", f"{folder.path}/{name}")
        folder.publish({}, [], dict.fromkeys(names, record))


def _measure(store: SlowStore, size: int, iterations: int) -> dict[str, float]:
    """Measure the first iterations of a stage 2 that uses every image once."""
    images, labels = (CheckedFolder.of(store.folder / str(size) / unit, "") for unit in ("images", "labels"))
    with peaks() as found:
        parts = images.parts()
        selection = draw_round(parts, [_PART_IMAGES] * len(parts), before=0, count=size, seed=0)
        channels = Channels.first(np.ones(_LANDMARKS, bool))
        plan = WindowPlan(len(parts), size, iterations, _BATCH, True, (0,))
        labelled = LabelledParts(images, selection, partial(labels_of_part, labels, channels))
        began, before = time.perf_counter(), (store.requests, store.part_requests, store.bytes)
        views = run_task(_consume, plan, WindowImages.open(plan, labelled))
        seconds = time.perf_counter() - began
    assert views == iterations * _BATCH
    memory = {name: found[name] for name in ("driver_mib", "process_mib", "object_store_mib")}
    requests, part_requests, sent = np.subtract((store.requests, store.part_requests, store.bytes), before).tolist()
    return {"requests": requests, "part_requests": part_requests, "bytes": sent, **memory, "seconds": seconds}


def _consume(plan: WindowPlan, images: WindowImages) -> int:
    """Take all batches, as a training worker does; return the number of views."""
    configure_ray_data()
    augment = AugmentConfig(paste=0.0)
    batches = feed_windows(plan, images, augment, _SIDE, first=0, rank=0, workers=1, data_workers=1)
    return sum(len(batch.picture) for batch in batches)
