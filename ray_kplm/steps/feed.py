"""Executes a plan: fetch, decode, augment, batch, in the plan's order, with Ray Data.

Determinism, resume and bounds come from the plan and from the pipeline's order: whichever actor makes a view, and however
many there are, view i of the plan is row i of the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from ray_kplm.config import AugmentConfig
from ray_kplm.methods.plan import Plan
from ray_kplm.methods.views import Views
from ray_kplm.steps.images import RoundImages

if TYPE_CHECKING:
    from ray_kplm.imaging.augment import View

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
    actors: int,
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
        _MakeViews,
        fn_constructor_kwargs={
            "images": images,
            "augment": augment,
            "size": size,
            "moving": bool((plan.shown != plan.image).any()),
        },
        batch_size=None,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    for batch in dataset.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=2):
        yield Views(**batch)


class _MakeViews:
    """Plan rows -> views."""

    def __init__(self, images: RoundImages, augment: AugmentConfig, size: int, moving: bool) -> None:
        from ray_kplm.imaging.augment import Augmenter  # takes seconds, and the training workers import this module too

        cv2.setNumThreads(1)
        self._images, self._moving = images, moving
        self._augment = Augmenter(augment, size)

    def __call__(self, batch: dict[str, NDArray]) -> dict[str, Any]:
        rows = zip(*(batch[name].tolist() for name in ("image", "shown", "seed", "flip")), strict=True)
        made = [self._view(*row) for row in rows]
        return {
            "picture": np.stack([view.picture for view in made]),
            "crop_to_view": np.stack([view.crop_to_view for view in made]),
            "shifts": np.stack([view.shifts for view in made]),
            "image": batch["image"],
            "flip": batch["flip"],
        }

    def _view(self, image: int, shown: int, seed: int, flip: bool) -> View:
        before = self._images[image] if self._moving else None
        return self._augment(self._images[shown], seed, flip, before)
