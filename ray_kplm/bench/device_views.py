"""`kplm bench device-views`: views made by PyTorch on a device, beside a training step and against a core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.imaging.view_parameters import ViewParameters, draw_views
from ray_kplm.methods.device_views import DeviceViews
from ray_kplm.methods.prefetch import Columns, ahead
from ray_kplm.network.compute import choose_device
from ray_kplm.progress import ProgressCallback

_AUGMENT = AugmentConfig(warp=0.06, paste=0.0)
_KEPT = 4
"""Number of different batches, which are used in turn."""
_SIDE = 4096
"""Of the matrices whose products stand for a training step on a GPU."""


def bench(device_name: str, size: int, batch: int, batches: int, progress: ProgressCallback) -> dict[str, Any]:
    """Measure the views of a device: from pictures in the process's memory to the network's input.

    Args:
        device_name: Of the device, see `choose_device`.
        size: Side of the views, pixels.
        batch: Number of views in a batch.
        batches: Number of batches that are timed.
        progress: Called before each measurement.

    Returns:
        Views per second, one batch after the other, and of the copy to the device alone; `overlap`, the share of the time of
        the views that vanishes when they are made ahead of a step that takes as long (on a GPU matrix products, on a CPU a
        sleep); views per second of CPU time by OpenCV on a core, and the ratio to these.
    """
    started, device = time.monotonic(), choose_device(device_name)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    progress(0.0, f"drawing {_KEPT * batch} inputs of {size} px")
    kept = [_batch(size, batch, number) for number in range(_KEPT)]
    make = DeviceViews(_AUGMENT, size, device)

    def columns(count: int) -> Iterator[Columns]:
        return (kept[number % _KEPT][0] for number in range(count))

    progress(0.1, f"{batches} batches of views on {device}")
    views_s = _seconds(lambda: [make(one) for one in columns(batches)], device)
    copy_s = _seconds(lambda: [make({"picture": one["picture"]}) for one in columns(batches)], device)
    step = _step(device, views_s / batches)
    progress(0.5, "views ahead of a step")
    step_s = _seconds(lambda: [step() for _ in range(batches)], device)
    both_s = _seconds(lambda: [step() for _ in ahead(columns(batches), make, device)], device)
    progress(0.8, "views by OpenCV on a core")
    core_s = _core_seconds(size, kept[0][1], kept[0][0]["picture"]) / batch
    progress(1.0, "all views")
    views = batches * batch
    return {
        "device": str(device),
        "device_views_per_s": views / views_s,
        "device_copies_per_s": views / copy_s,
        "overlap": (views_s + step_s - both_s) / min(views_s, step_s),
        "core_views_per_s": 1 / core_s,
        "device_to_core": views / views_s * core_s,
        "seconds": time.monotonic() - started,
    }


def _batch(size: int, count: int, number: int) -> tuple[Columns, ViewParameters]:
    """Return a batch as a Ray Data task returns it, of pictures at random, and what its views will be."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    crops = [cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in coarse]
    seeds, flip = rng.integers(0, 2**31, count), rng.random(count) < 0.5
    parameters = draw_views(_AUGMENT, seeds, flip)
    made = Augmenter(_AUGMENT, size).inputs(parameters, crops)
    return {**vars(made), "seed": seeds, "flip": flip}, parameters


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the faster of two calls, until the device has done all."""
    seconds = []
    for _ in range(3):  # the first one is not counted: memory is reserved, kernels are loaded
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _step(device: torch.device, seconds: float) -> Callable[[], object]:
    """Return what stands for a training step of some seconds."""
    if device.type != "cuda":
        return lambda: time.sleep(seconds)
    matrix = torch.ones((_SIDE, _SIDE), dtype=torch.bfloat16, device=device)
    target = torch.empty_like(matrix)
    alone = _seconds(lambda: [torch.mm(matrix, matrix, out=target) for _ in range(20)], device) / 20
    products = max(1, round(seconds / alone))
    return lambda: [torch.mm(matrix, matrix, out=target) for _ in range(products)]


def _core_seconds(size: int, parameters: ViewParameters, crops: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    """Return the CPU seconds of the views of a batch by OpenCV: the faster of two calls after the first one."""
    make, seconds = Augmenter(_AUGMENT, size), []
    for _ in range(3):
        began = time.thread_time()
        make.views(parameters, crops)
        seconds.append(time.thread_time() - began)
    return min(seconds[1:])
