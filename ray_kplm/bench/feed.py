"""`kplm bench feed`: whether the way of views to a training worker holds up the tasks that make them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import ComputeConfig
from ray_kplm.progress import ProgressCallback
from ray_kplm.runtime.data_pipeline import block_ends, execute
from ray_kplm.runtime.session import session

_CPUS = 0.05
"""CPUs that a task reserves: it sleeps, so many of them fit on a few cores."""


def bench(tasks: int, size: int, batch: int, rate: float, seconds: float, progress: ProgressCallback) -> dict[str, Any]:
    """Measure the views that reach a training worker from tasks that sleep for as long as they would make views.

    Such tasks need no cores, so that what is lost is lost on the way: by Ray Data's limits, order and copies. The consumer
    takes batches as fast as they come.

    Args:
        tasks: Ray Data tasks at a time.
        size: Side of the views, pixels.
        batch: Number of views in a batch.
        rate: Views per second that a task makes.
        seconds: Seconds for which all tasks make views.
        progress: Called while views arrive.

    Returns:
        Views per second, until the last task begins; those that the tasks could make if one followed the other at once; and
        the ratio, `feed_share`.
    """
    started, possible = time.monotonic(), tasks * rate
    views = batch * max(1, round(possible * seconds / batch))
    ends = block_ends(views, batch, size, tasks)
    blocks = [pa.table({"row": rows}) for rows in np.split(np.arange(views), ends[:-1])]
    with session(ComputeConfig()):
        progress(0.0, f"starting {tasks} tasks")
        sleep, run = _sleeper(), partial(execute, share=batch, workers=1, data_workers=tasks, cpus=_CPUS)
        for _ in run(blocks[:tasks], sleep, {"rate": 200.0, "size": 8}, 8):
            pass  # their processes start, which takes seconds
        began: list[float] = []
        takes: list[float] = []
        out_of_order = 0
        for made in run(blocks, sleep, {"rate": rate, "size": size}, size):
            out_of_order += int(made["row"][0] != len(began) * batch)
            began.append(made["began"][0])
            takes.append(made["takes"][0])
            progress(len(began) * batch / views, f"{len(began) * batch:,} views")
    until = max(began)  # from then on there is no work left for all tasks
    done = np.clip((until - np.array(began)) / takes, 0, 1).sum() * batch
    made_per_s = done / (until - min(began))
    progress(1.0, "all views")
    return {
        "feed_share": made_per_s / possible,
        "views_per_s": made_per_s,
        "possible_views_per_s": possible,
        "batches_out_of_order": out_of_order,
        "seconds": time.monotonic() - started,
    }


def _sleeper() -> Callable[..., dict[str, Any]]:
    """Return what the tasks call: it makes black pictures of a block's rows and sleeps for the rest of the time."""

    # Defined here, it travels to the processes by value, and they start without importing PyTorch.
    def sleep(block: dict[str, NDArray[Any]], rate: float, size: int) -> dict[str, Any]:
        began = time.monotonic()  # the same clock in all processes of a node
        pictures = np.zeros((len(block["row"]), size, size, 3), np.uint8)
        takes = len(pictures) / rate
        time.sleep(max(takes - (time.monotonic() - began), 0))
        every = np.ones(len(pictures))
        return {"picture": pictures, "row": block["row"], "began": began * every, "takes": takes * every}

    return sleep
