"""`kplm bench step`: the training step of stage 1 on a device, against the device's own matrix products."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_kplm.analysis.training_time import random_learner
from ray_kplm.bench.scale_network import stage1_cost
from ray_kplm.config import Config, load_config
from ray_kplm.errors import ConfigError
from ray_kplm.imaging.warp import IDENTITY_SHIFT
from ray_kplm.methods import build_method
from ray_kplm.methods.batch import Views
from ray_kplm.methods.trainer import Learner
from ray_kplm.network.compute import Placement, choose_device
from ray_kplm.progress import ProgressCallback
from ray_kplm.report.text_table import align

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WARM, _STEPS, _SECONDS = 3, 30, 3.0
"""Steps that are not timed: in the first a compiled step is compiled, in the next its CUDA graphs are recorded; most steps that
are timed; and the seconds after which three are enough."""
_SIDE, _SIDE_ON_CUDA = 1024, 8192
"""Of the matrices whose product is the peak."""


@dataclass(frozen=True)
class Sizes:
    """What is timed.

    Attributes:
        image: Side of the views, pixels.
        width: Of the network.
        batches: Numbers of views of a step.
        precisions: Number formats, fp32 or bf16.
        compile: Values of `compute.compile`, no or yes.
    """

    image: int
    width: int
    batches: Sequence[int]
    precisions: Sequence[str]
    compile: Sequence[str]


def sizes_for(
    device_name: str,
    image: int | None,
    width: int | None,
    batches: Sequence[int] | None,
    precisions: Sequence[str],
    compile: Sequence[str] | None,
) -> Sizes:
    """Return what is timed on a device; of what is None, that of a large training on CUDA and of a small one elsewhere.

    Raises:
        ConfigError: A batch has an odd number of views, or there is no such device.
    """
    on_cuda = choose_device(device_name).type == "cuda"
    if odd := [batch for batch in batches or () if batch % 2]:
        raise ConfigError(f"--batches {odd[0]}: views come in pairs; give an even number")
    return Sizes(
        image or (256 if on_cuda else 128),
        width or (256 if on_cuda else 32),
        batches or ((16, 32, 64, 256) if on_cuda else (8,)),
        precisions,
        compile or (("no", "yes") if on_cuda else ("no",)),
    )


def bench(device_name: str, sizes: Sizes, progress: ProgressCallback) -> dict[str, Any]:
    """Time training steps on images in memory.

    Args:
        device_name: Of the device, see `choose_device`.
        sizes: What is timed.
        progress: Called before each measurement.

    Returns:
        `peak_tflops` of each number format; and `steps`, for each number format, batch and compilation: `views_per_s`,
        `peak_share`, the network's operations in a second by those of the matrix product, and `compiled`, whether the step was
        in the end. Figures are None where the batch has no room on the device. `best_peak_share` is the largest.
    """
    started, device = time.monotonic(), choose_device(device_name)
    progress(0.0, f"matrix products on {device}")
    peak = {precision: _peak(device, _TYPES[precision]) for precision in sizes.precisions}
    cost = stage1_cost(_config(sizes, "fp32", "no", 2)).train
    cases = list(itertools.product(sizes.precisions, sizes.batches, sizes.compile))
    rows: list[dict[str, Any]] = []
    for number, (precision, batch, compile) in enumerate(cases):
        progress((1 + number) / (1 + len(cases)), f"{batch} views in {precision}, compile: {compile}")
        config = _config(sizes, precision, compile, batch)
        seconds, compiled = _step_seconds(config, device, batch)
        views = None if seconds is None else batch / seconds
        rows.append(
            {
                "precision": precision,
                "batch": batch,
                "compile": compile,
                "compiled": compiled,
                "views_per_s": views,
                "peak_share": None if views is None else views * cost / peak[precision],
            }
        )
    progress(1.0, "all steps")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "image_size": sizes.image,
        "width": sizes.width,
        "gflop_per_view": cost / 1e9,
        "peak_tflops": {precision: value / 1e12 for precision, value in peak.items()},
        "steps": rows,
        "best_peak_share": max((row["peak_share"] for row in rows if row["peak_share"] is not None), default=None),
        "seconds": time.monotonic() - started,
    }


def lines(results: dict[str, Any]) -> list[str]:
    """Return the results of `bench` as a text table."""
    table = [["number format", "views", "compiled", "views/s", "of the peak"]]
    for row in results["steps"]:
        views, share = row["views_per_s"], row["peak_share"]
        figures = ["no room", ""] if views is None else [f"{views:,.1f}", f"{share:.0%}"]
        asked = (
            "yes" if row["compiled"] else "failed" if row["compile"] == "yes" and views is not None else row["compile"]
        )
        table.append([row["precision"], str(row["batch"]), asked, *figures])
    peaks = ", ".join(f"{precision} {value:,.2f}" for precision, value in results["peak_tflops"].items())
    heading = (
        f"{results['image_size']} px, width {results['width']}, on {results['device']}: "
        f"{results['gflop_per_view']:.2f} GFLOP a view"
    )
    return [heading, f"peak of a matrix product, TFLOP/s: {peaks}", "", *align(table)]


def _config(sizes: Sizes, precision: str, compile: str, batch: int) -> Config:
    return load_config(
        None,
        [
            f"network.image_size={sizes.image}",
            f"network.width={sizes.width}",
            f"stage1.batch_size={batch // 2}",
            f"compute.precision={precision}",
            f"compute.compile={compile}",
        ],
    )


def _peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations in a second of a matrix product, in fp32 by the rule (TF32) of the convolutions."""
    side = _SIDE_ON_CUDA if device.type == "cuda" else _SIDE
    matrix = torch.rand(side, side, device=device).to(dtype)
    target, tf32 = torch.empty_like(matrix), torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            torch.mm(matrix, matrix, out=target)
            _wait(device)
            seconds.append(time.perf_counter() - began)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    return 2 * side**3 / min(seconds[1:])


def _step_seconds(config: Config, device: torch.device, batch: int) -> tuple[float | None, bool]:
    """Return the median seconds of a step, None without room for it, and whether it was compiled in the end."""
    try:
        objective = build_method(config).objective(1)
        placement = Placement.choose(config.compute, device)
        learner = random_learner(config, objective, placement, batch, config.method.clusters)
        return _median_seconds(learner, _views(config, device, batch)), learner.is_compiled
    except torch.OutOfMemoryError:
        return None, False
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _median_seconds(learner: Learner, views: Views) -> float:
    device, seconds = learner.placement.device, []
    began = time.perf_counter()
    for number in range(_WARM + _STEPS):
        started = time.perf_counter()
        learner.step(number, views)
        _wait(device)
        if number < _WARM:
            began = time.perf_counter()
            continue
        seconds.append(time.perf_counter() - started)
        if len(seconds) >= 3 and time.perf_counter() - began > _SECONDS:
            break
    return float(np.median(seconds))


def _views(config: Config, device: torch.device, batch: int) -> Views:
    """Return random views, on a GPU in its memory, as it makes them itself."""
    size, rng = config.network.image_size, np.random.default_rng(config.seed)
    picture: Any = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    if device.type == "cuda":
        picture = torch.from_numpy(picture).to(device).float() / 255
    plain = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (batch, 1, 1))
    return Views(picture, np.arange(batch), np.zeros(batch, bool), plain, np.tile(IDENTITY_SHIFT, (batch, 1, 1, 1)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
