"""`kplm bench views`: what a training view costs on one core, against the same views made by albumentations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import AugmentConfig
from ray_kplm.datasets.image_io import encode_jpeg
from ray_kplm.imaging import photometry
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.imaging.reference_views import ReferenceAugmenter
from ray_kplm.imaging.resampling import Resampler
from ray_kplm.imaging.synthetic.category import render
from ray_kplm.imaging.view_parameters import ViewParameters, draw_views
from ray_kplm.imaging.warp import point_shifts
from ray_kplm.progress import ProgressCallback
from ray_kplm.report.text_table import align

_WARP = 0.06
"""The smooth warp of faces_cpu.yaml, where the configuration has none."""
_MEASUREMENTS = 7
"""How often each part is measured, in turn; the fastest counts."""


@dataclass(frozen=True)
class Case:
    """Kind of views that is measured: their side, whether they are warped, and whether objects have boxes to be cut out by."""

    side: int
    warp: bool
    boxes: bool = False


HEADLINE = Case(128, warp=True)
CASES = (HEADLINE, Case(128, warp=False), Case(128, warp=True, boxes=True), Case(256, warp=True), Case(256, warp=False))


def bench(
    augment: AugmentConfig, images: int, progress: ProgressCallback, cases: tuple[Case, ...] = CASES
) -> dict[str, Any]:
    """Measure the making of views from stored images, in this process, on one thread, in CPU time.

    Args:
        augment: Ranges of the augmentation.
        images: Number of rendered images, each of which is shown once.
        progress: Called before each case.
        cases: What is measured; the first one is the headline.

    Returns:
        Of the first case, views per second and core, this as a multiple of the reference's, and decoding's share of the time;
        of each case the same, and the microseconds of each step. All of them count decoding, and the drawing of parameters.
    """
    started, rows = time.monotonic(), []
    cv2.setNumThreads(1)
    for index, case in enumerate(cases):
        progress(index / len(cases), _title(case))
        rows.append(_measure(augment, case, images))
    progress(1.0, "all kinds of views")
    first = rows[0]
    headline = ("views_ratio_to_reference", "decode_share", "views_per_s_per_core")
    return {**{name: first[name] for name in headline}, "cases": rows, "seconds": time.monotonic() - started}


def lines(results: dict[str, Any]) -> list[str]:
    """Return the results of `bench` as a text table."""
    steps = list(results["cases"][0]["microseconds"])
    table = [["views", "views/s a core", "x reference", *(f"{step}, us" for step in steps)]]
    for row in results["cases"]:
        times = [f"{row['microseconds'][step]:.0f}" for step in steps]
        name = _title(Case(row["side"], row["warp"], row["boxes"]))
        table.append([name, f"{row['views_per_s_per_core']:,.0f}", f"{row['views_ratio_to_reference']:.1f}", *times])
    return [*align(table), f"decoding: {results['decode_share']:.0%} of the time of the first kind"]


def _title(case: Case) -> str:
    return f"{case.side} px, {'with' if case.warp else 'no'} warp{', boxes' if case.boxes else ''}"


def _measure(augment: AugmentConfig, case: Case, images: int) -> dict[str, Any]:
    augment = replace(augment, warp=(augment.warp or _WARP) if case.warp else 0.0)
    stored = _Stored(case.side, images, case.boxes)
    make, reference = Augmenter(augment, case.side), ReferenceAugmenter(case.side)
    seeds = np.arange(images)
    draw = partial(draw_views, augment, seeds, seeds % 2 == 1)
    parameters, pictures = draw(), list(stored.images())
    resampler, affine = Resampler(case.side, warped=case.warp), np.zeros((images, 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = 1
    nodes = parameters.warp * case.side
    maps, out = resampler.maps(affine, nodes), np.empty_like(pictures[0])

    def by_reference() -> None:
        drawn = draw()
        for index, (picture, boxed) in enumerate(zip(stored.images(), stored.boxes(drawn), strict=True)):
            reference(picture, drawn, index, boxed)

    def fast() -> None:
        drawn = draw()
        make.views(drawn, stored.images(), boxed=stored.boxes(drawn))

    def decode() -> None:
        for _ in stored.images():
            pass
        for _ in stored.boxes(parameters):
            pass

    def resample() -> None:
        resampler.maps(affine, nodes)
        for picture, view_map in zip(pictures, maps, strict=True):
            resampler.resample(picture, view_map, out)

    def change() -> None:
        for index, picture in enumerate(pictures):
            np.copyto(out, picture)
            photometry.change(out, parameters, index)

    calls: dict[str, Callable[[], object]] = {
        "reference": by_reference,
        "fast": fast,
        "decode": decode,
        "resample": resample,
    }
    calls |= {"colour, blur, noise": change, "draw": draw}
    if case.warp:
        calls["points"] = partial(point_shifts, nodes, case.side)
    seconds = _fastest(calls)
    total = seconds["fast"]
    steps = {name: seconds.get(name, 0.0) for name in ("decode", "resample", "colour, blur, noise", "points", "draw")}
    steps["paste and other"] = total - sum(steps.values())
    return {
        "side": case.side,
        "warp": case.warp,
        "boxes": case.boxes,
        "views_ratio_to_reference": seconds["reference"] / total,
        "decode_share": seconds["decode"] / total,
        "views_per_s_per_core": images / total,
        "reference_views_per_s_per_core": images / seconds["reference"],
        "microseconds": {name: 1e6 * value / images for name, value in steps.items()},
    }


class _Stored:
    """Rendered images as `ingest` stores them."""

    def __init__(self, side: int, count: int, boxes: bool) -> None:
        rendered = [render(0, index, side) for index in range(count)]
        encoded = pa.array([encode_jpeg(one.image) for one in rendered])
        self._encoded = [encoded[index] for index in range(count)]
        self._boxes = [one.box.astype(np.float64) for one in rendered] if boxes else None

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """Decode one image after the other."""
        return map(decode_crop, self._encoded)

    def boxes(self, parameters: ViewParameters) -> Iterator[Boxed | None]:
        """Decode the image whose background a view gets, where it gets one."""
        for index, paste in enumerate(parameters.paste.tolist()):
            if self._boxes is None or not paste:
                yield None
            else:
                other = index - 1
                yield Boxed(self._boxes[index], decode_crop(self._encoded[other]), self._boxes[other])


def _fastest(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the CPU seconds of each call, the fastest of several that take turns with those of the others."""
    seconds = dict.fromkeys(calls, float("inf"))
    for _ in range(_MEASUREMENTS):
        for name, call in calls.items():
            began = time.thread_time()
            call()
            seconds[name] = min(seconds[name], time.thread_time() - began)
    return seconds
