"""Executes a plan: fetch, decode, augment, batch, in the plan's order, with Ray Data.

Determinism, resume and bounds come from the plan and from the pipeline's order: whichever process makes a view, and however
many there are, view i of the plan is row i of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from ray.data import TaskPoolStrategy

from ray_kplm.config import AugmentConfig
from ray_kplm.methods.plan import Plan
from ray_kplm.methods.views import Views
from ray_kplm.steps.images import RoundImages

if TYPE_CHECKING:
    from ray_kplm.imaging.augment import Augmenter

_BLOCK_VIEWS = 128
"""Views made by one Ray Data task: enough to hide a task's few milliseconds, little enough to start soon."""


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
    per_block = max(1, _BLOCK_VIEWS // share) * share
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
    for batch in dataset.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=2):
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
