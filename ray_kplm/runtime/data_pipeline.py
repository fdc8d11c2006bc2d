"""Executes a plan: fetch, decode, augment, batch, in the plan's order, with Ray Data.

Determinism, resume and bounds come from the plan and from the pipeline's order: whichever process makes a view, and however
many there are, view i of the plan is row i of the output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data import ExecutionResources, TaskPoolStrategy

from ray_kplm.config import AugmentConfig
from ray_kplm.methods.batch import Views
from ray_kplm.methods.sampling import Plan
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.session import AHEAD_BYTES

if TYPE_CHECKING:
    from ray_kplm.imaging.augment import Augmenter

_BLOCK_VIEWS = 128
"""Views made by one Ray Data task: enough to hide a task's few milliseconds, little enough to start soon."""
_PREFETCHED_BATCHES = 2
_STORE_SHARE = 0.5
"""Of the cluster's object store for views: images, labels and what else runs need the rest."""


def ahead_bytes(share: int, size: int, data_workers: int, workers: int, store_bytes: float) -> int:
    """Return how much of the object store a training worker's views may fill, bytes.

    2 b (2 D + P), for D = `data_workers` tasks and blocks of b bytes. A block for each running task, as many finished ones
    behind a slow first one, since order is kept, and P at the consumer: those of its prefetched batches, and the one that
    batches are cut from. So much Ray Data 2.60 counts before it starts a task; and twice that, as from half of the limit on it
    also holds tasks back for a consumer that has less than a third of what is finished. With less not all D run.

    No less than other pipelines have, which bridges pauses; no more than the worker's part of half of the store.

    share: views of a batch; size: of a view, pixels.
    """
    block_views = _block_views(share)
    prefetched = math.ceil(_PREFETCHED_BATCHES * share / block_views) + 1
    wanted = 2 * block_views * 3 * size**2 * (2 * data_workers + prefetched)
    return int(min(max(wanted, AHEAD_BYTES), _STORE_SHARE * store_bytes / workers))


def _block_views(share: int) -> int:
    """Views of a block: whole batches."""
    return max(1, _BLOCK_VIEWS // share) * share


def feed(
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
    """The batches of worker `rank`, from iteration `first` to the plan's end."""
    share = plan.views // workers
    rows = plan.rows(first, plan.iterations, rank, workers)
    if not len(rows):
        return
    per_block = _block_views(share)
    blocks = [
        pa.table({"image": plan.image[r], "shown": plan.shown[r], "seed": plan.seed[r], "flip": plan.flip[r]})
        for r in np.split(rows, np.arange(per_block, len(rows), per_block))
    ]
    dataset = ray.data.from_arrow(blocks).map_batches(
        _make_views,
        fn_kwargs={
            "images": images,
            "augment": augment,
            "size": size,
            "moving": bool((plan.shown != plan.image).any()),
        },
        batch_size=None,
        compute=TaskPoolStrategy(size=data_workers),
        num_cpus=1,
    )
    store_bytes = ray.cluster_resources().get("object_store_memory", math.inf)
    ahead = ahead_bytes(share, size, data_workers, workers, store_bytes)
    dataset.context.execution_options.resource_limits = ExecutionResources(object_store_memory=ahead)
    for batch in dataset.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=_PREFETCHED_BATCHES):
        yield Views(**batch)


def _make_views(
    batch: dict[str, NDArray], images: RoundImages, augment: AugmentConfig, size: int, moving: bool
) -> dict[str, Any]:
    """Plan rows -> views. A task and no actor: actors are new processes for every training, which a short round waits for;
    tasks find those of the last one, with all modules loaded."""
    make = _augmenter(augment, size)
    images.fetch(np.union1d(batch["image"], batch["shown"]) if moving else batch["image"])
    rows = zip(*(batch[name].tolist() for name in ("image", "shown", "seed", "flip")), strict=True)
    made = [make(images[shown], seed, flip, images[image] if moving else None) for image, shown, seed, flip in rows]
    return {
        "picture": np.stack([view.picture for view in made]),
        "crop_to_view": np.stack([view.crop_to_view for view in made]),
        "shifts": np.stack([view.shifts for view in made]),
        "image": batch["image"],
        "flip": batch["flip"],
    }


@lru_cache(maxsize=1)
def _augmenter(augment: AugmentConfig, size: int) -> Augmenter:
    from ray_kplm.imaging.augment import Augmenter  # takes seconds, and the training workers import this module too

    cv2.setNumThreads(1)
    return Augmenter(augment, size)
