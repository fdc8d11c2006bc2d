"""Execute a data plan with Ray Data: fetch, decode, augment and batch the views of a training.

Row i of the output is view i of the plan, whichever process makes it and however many processes there are. So batches are
deterministic, and a restarted training continues the plan at its iteration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data import ExecutionResources, TaskPoolStrategy

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.view_parameters import draw_views
from ray_kplm.methods.batch import Views
from ray_kplm.methods.device_views import DeviceViews, can_make
from ray_kplm.methods.prefetch import ahead
from ray_kplm.methods.sampling import Plan
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.session import OBJECT_STORE_BYTES

BLOCK_VIEWS = 128
"""Views made by one of the first Ray Data tasks of a training: few, so that it starts quickly."""
_LARGE_BLOCK_VIEWS, _LARGE_BLOCK_BYTES = 1024, 64 * 2**20
"""Most views made by one of the tasks that follow, and their most bytes. Between two tasks a core waits for Ray Data's
scheduler, some 20 milliseconds, in which it would make tens of views."""
_QUICK_BLOCKS = 2
"""Small blocks at the start, for each task at a time."""
_PREFETCHED_BATCHES = 2
_STORE_SHARE = 0.5
"""Share of the cluster's object store that views may fill; images, labels and other runs need the rest."""


def object_store_limit(share: int, size: int, data_workers: int, workers: int, store_bytes: float) -> int:
    """Return how much of the object store the views of one training worker may fill, in bytes.

    It is 2 b (2 D + P), for D = `data_workers` tasks and blocks of b bytes:

    * D blocks for the running tasks;
    * D finished blocks that wait for an earlier, slower one, since order is preserved;
    * P blocks at the consumer: those of its prefetched batches, and the one that batches are sliced from;
    * twice that, because Ray Data stops starting tasks at half of the limit while the consumer holds less than a third of the
      finished blocks (Ray 2.60).

    With a lower limit not all D tasks run at a time. The result is at least the default of all pipelines, and at most the
    worker's part of half of the object store.

    Args:
        share: views in the worker's share of a batch.
        size: side of a view, pixels.
        data_workers: Ray Data tasks at a time for the worker.
        workers: training workers.
        store_bytes: size of the cluster's object store.
    """
    per_block = _large_block(share, size)
    prefetched = math.ceil(_PREFETCHED_BATCHES * share / per_block) + 1
    wanted = 2 * per_block * 3 * size**2 * (2 * data_workers + prefetched)
    return int(min(max(wanted, OBJECT_STORE_BYTES), _STORE_SHARE * store_bytes / workers))


def block_ends(views: int, share: int, size: int, data_workers: int) -> list[int]:
    """Return where the blocks of a training worker's views end: whole batches, first small ones, then large ones.

    Args:
        views: of the worker.
        share: views in the worker's share of a batch.
        size: side of a view, pixels.
        data_workers: Ray Data tasks at a time for the worker.
    """
    small, large = _whole_batches(BLOCK_VIEWS, share), _large_block(share, size)
    quick = min(_QUICK_BLOCKS * data_workers * small, views)
    return [*range(small, quick, small), *range(quick, views, large), views]


def _large_block(share: int, size: int) -> int:
    """Return the views in a block after the first ones."""
    fitting = _LARGE_BLOCK_BYTES // (3 * size**2)
    return _whole_batches(max(BLOCK_VIEWS, min(fitting, _LARGE_BLOCK_VIEWS)), share)


def _whole_batches(views: int, share: int) -> int:
    """Return a number of views as whole batches, at least one."""
    return max(1, views // share) * share


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
    device_views: DeviceViews | None = None,
) -> Iterator[Views]:
    """Yield the batches of one training worker, in the plan's order.

    Args:
        plan: data plan of the training.
        images: images of the round, which the plan's rows refer to.
        augment: ranges of the augmentation.
        size: side of a view, pixels.
        first: iteration to start at; the last one is the plan's.
        rank: rank of the training worker.
        workers: number of training workers, which share each batch.
        data_workers: Ray Data tasks at a time.
        device_views: makes the views on the training device, ahead of the step; None: the tasks make them.
    """
    share = plan.views // workers
    rows = plan.rows(first, plan.iterations, rank, workers)
    if not len(rows):
        return
    blocks = [
        pa.table(
            {
                "image": plan.image[r],
                "shown": plan.shown[r],
                "seed": plan.seed[r],
                "flip": plan.flip[r],
                "other": plan.image[plan.seed[r] % len(plan.image)],  # of the plan alone, wherever a training continues
            }
        )
        for r in np.split(rows, block_ends(len(rows), share, size, data_workers)[:-1])
    ]
    moving = bool((plan.shown != plan.image).any())
    make_arguments = {
        "images": images, "augment": augment, "size": size, "moving": moving,
        "inputs_only": device_views is not None and can_make(augment, moving),
    }  # fmt: skip
    for batch in execute(
        blocks, make_views, make_arguments, size,
        share=share, workers=workers, data_workers=data_workers, device_views=device_views,
    ):  # fmt: skip
        yield Views(**batch)


def execute(
    blocks: list[pa.Table],
    make: Callable[..., dict[str, Any]],
    make_arguments: dict[str, Any],
    size: int,
    *,
    share: int,
    workers: int,
    data_workers: int,
    device_views: DeviceViews | None = None,
    cpus: float = 1.0,
) -> Iterator[dict[str, Any]]:
    """Yield the batches of a training worker, made of blocks in their order.

    Args:
        blocks: each is what one task makes whole batches of.
        make: called with a block's columns; returns those of its views, see `Views`.
        make_arguments: of `make`, by name.
        size: side of a view, pixels.
        share: views in the worker's share of a batch.
        workers: number of training workers.
        data_workers: Ray Data tasks at a time.
        device_views: what is called with the batches, ahead of the step.
        cpus: CPUs that a task reserves.
    """
    dataset = ray.data.from_arrow(blocks).map_batches(
        make,
        fn_kwargs=make_arguments,
        batch_size=None,
        compute=TaskPoolStrategy(size=data_workers),
        num_cpus=cpus,
    )
    store_bytes = ray.cluster_resources().get("object_store_memory", math.inf)
    limit = object_store_limit(share, size, data_workers, workers, store_bytes)
    dataset.context.execution_options.resource_limits = ExecutionResources(object_store_memory=limit)
    batches = dataset.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=_PREFETCHED_BATCHES)
    yield from batches if device_views is None else ahead(iter(batches), device_views, device_views.device)


def make_views(
    batch: dict[str, NDArray[Any]],
    images: RoundImages,
    augment: AugmentConfig,
    size: int,
    moving: bool,
    inputs_only: bool = False,
) -> dict[str, Any]:
    """Turn rows of a plan into views, or into the inputs of which a training device makes them.

    It runs in tasks rather than actors: an actor pool starts new processes for every training, while tasks reuse the processes
    of the previous training, with all modules loaded.

    Args:
        batch: columns of the plan.
        images: images of the round.
        augment: ranges of the augmentation.
        size: side of a view, pixels.
        moving: whether some views show another frame than the one that is labelled.
        inputs_only: whether `DeviceViews` makes the views.
    """
    make = _augmenter(augment, size)
    parameters = draw_views(augment, batch["seed"], batch["flip"])
    used = [batch["image"], *([batch["shown"]] if moving else []), batch["other"][parameters.paste]]
    images.fetch(np.unique(np.concatenate(used)))
    shown, other = batch["shown"].tolist(), batch["other"].tolist()
    pictures = (images[index] for index in shown)
    boxed = (
        _boxed(images, *pair) if paste else None
        for *pair, paste in zip(shown, other, parameters.paste.tolist(), strict=True)
    )
    columns = {"image": batch["image"], "flip": batch["flip"]}
    if inputs_only:
        return vars(make.inputs(parameters, pictures, boxed)) | columns | {"seed": batch["seed"]}
    before = (images[index] for index in batch["image"].tolist()) if moving else None
    return vars(make.views(parameters, pictures, before, boxed)) | columns


def _boxed(images: RoundImages, index: int, other: int) -> Boxed | None:
    """Return an image's box, with another image and its box; None without boxes."""
    box, other_box = images.box(index), images.box(other)
    return None if box is None or other_box is None else Boxed(box, images[other], other_box)


@lru_cache(maxsize=1)
def _augmenter(augment: AugmentConfig, size: int) -> Augmenter:
    """Return the augmenter, built once in a process."""
    cv2.setNumThreads(1)
    return Augmenter(augment, size)
