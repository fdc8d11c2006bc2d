"""Execute a `WindowPlan` with Ray Data: as `data_pipeline`, for a training whose images are never all at hand.

A task that makes a block of views asks the training's `WindowStore` for the windows that the block lies in, at most two. Labels
travel with the views, so that a training worker holds none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from ray_kplm.config import AugmentConfig
from ray_kplm.methods.batch import Views
from ray_kplm.methods.device_views import DeviceViews, can_make
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.runtime.data_pipeline import BLOCK_VIEWS, execute, make_views
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.window_store import PartLabels, Window, WindowImages

_EXECUTION_BLOCKS = 512
"""Blocks of an execution of Ray Data, which holds some kilobytes for each: their number must not grow with the training. The
next execution starts in a fraction of a second, when these blocks are used up."""
_LABEL = "label_"
"""Prefix of the columns of labels beside the views."""


def feed_windows(
    plan: WindowPlan,
    images: WindowImages,
    augment: AugmentConfig,
    size: int,
    *,
    first: int,
    rank: int,
    workers: int,
    data_workers: int,
    device_views: DeviceViews | None = None,
) -> Iterator[Views]:
    """Yield the batches of one training worker, in the plan's order, with their labels: see `data_pipeline.feed`."""
    share = plan.views // workers
    step = plan.block_iterations(BLOCK_VIEWS, workers)
    make_arguments = {
        "plan": plan, "images": images, "augment": augment, "size": size, "rank": rank, "workers": workers,
        "inputs_only": device_views is not None and can_make(augment, moving=False),
    }  # fmt: skip
    for begin in range(first, plan.iterations, step * _EXECUTION_BLOCKS):
        end = min(begin + step * _EXECUTION_BLOCKS, plan.iterations)
        blocks = [pa.table({"first": [i], "last": [min(i + step, end)]}) for i in range(begin, end, step)]
        for batch in execute(
            blocks, _make_block, make_arguments, size,
            share=share, workers=workers, data_workers=data_workers, device_views=device_views,
        ):  # fmt: skip
            names = [name for name in batch if name.startswith(_LABEL)]
            labels = Labels(**{name.removeprefix(_LABEL): batch.pop(name) for name in names})
            yield Views(**batch, labels=labels)


def _make_block(
    block: dict[str, NDArray[np.int64]],
    plan: WindowPlan,
    images: WindowImages,
    augment: AugmentConfig,
    size: int,
    rank: int,
    workers: int,
    inputs_only: bool = False,
) -> dict[str, Any]:
    """Make a worker's views, or inputs, of the iterations first <= i < last, with their labels."""
    places = plan.places(int(block["first"][0]), int(block["last"][0]), rank, workers)
    found = images.windows(int(places[0]), int(places[-1]), rank, workers)
    counts = np.concatenate([window.counts for window in found])
    parts: list[PartLabels] = ray.get([reference for window in found for reference in window.labels])
    rows = _rows(plan, found, places)
    if all(part.flip is not None for part in parts):
        rows["flip"] = np.concatenate([part.flip for part in parts])[rows["image"]]
    encoded = RoundImages(np.cumsum(counts) - counts, [reference for window in found for reference in window.images])
    views = make_views(rows, encoded, augment, size, moving=False, inputs_only=inputs_only)
    labels = Labels.joined([part.labels for part in parts]).rows(rows["image"])
    views["image"] = np.arange(len(places)) % (plan.views // workers)  # in the worker's batch, whose labels come along
    return views | {f"{_LABEL}{name}": array for name, array in labels.arrays().items()}


def _rows(plan: WindowPlan, found: list[Window], places: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the rows of `data_pipeline.make_views` for some places of a plan; images are counted through the windows found."""
    columns: dict[str, list[NDArray[Any]]] = {"image": [], "seed": [], "flip": [], "other": []}
    before = 0
    for window in found:
        count = int(window.counts.sum())
        shown = plan.shown(window.number, count)
        here = places[(places >= window.start) & (places < window.start + count)] - window.start
        seed = shown.seed[here]
        columns["image"].append(before + shown.image[here])
        columns["seed"].append(seed)
        columns["flip"].append(shown.flip[here])
        columns["other"].append(before + shown.image[seed % max(count, 1)])
        before += count
    rows = {name: np.concatenate(pieces) for name, pieces in columns.items()}
    return rows | {"shown": rows["image"]}
