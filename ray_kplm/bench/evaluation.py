"""`kplm bench evaluation`: processor seconds of the metrics, on made-up landmarks of the size of the field's test parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.annotation import LandmarkSet
from ray_kplm.evaluation.regression import backward_nme, forward_nme
from ray_kplm.evaluation.summary import evaluate_landmarks
from ray_kplm.progress import ProgressCallback

_DRAWS, _DRAWN = 10, 300
_MISSING = 0.05
"""Share of points that are not annotated and not detected, in the second measurement of each."""


def bench(images: int, points: int, landmarks: int, progress: ProgressCallback) -> dict[str, Any]:
    """Processor seconds of this process, of forward and backward NME over ten draws and of all figures at once."""
    found: dict[str, Any] = {"test_images": images, "points": points, "landmarks": landmarks, "draws": _DRAWS}
    for name, missing in (("complete", 0.0), ("missing", _MISSING)):
        progress(0.0, f"{name} annotation")
        train, test = (_part(seed, images, points, landmarks, missing) for seed in (0, 1))
        found |= {f"{what}_s_{name}": seconds for what, seconds in _measured(train, test).items()}
    return found


def _measured(train: LandmarkSet, test: LandmarkSet) -> dict[str, float]:
    filled = [np.nan_to_num(part.discovered, nan=0.5) for part in (train, test)]
    forward = (filled[0], train.truth, filled[1], test.truth, test.normaliser)
    backward = (train.discovered, train.truth, test.discovered, test.truth, test.normaliser)
    return {
        "forward": _seconds(lambda: forward_nme(*forward, train_images=_DRAWN, draws=_DRAWS)),
        "backward": _seconds(lambda: backward_nme(*backward, train_images=_DRAWN, draws=_DRAWS)),
        "all_figures": _seconds(lambda: evaluate_landmarks(train, test)),
    }


def _seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _part(seed: int, images: int, points: int, landmarks: int, missing: float) -> LandmarkSet:
    """Crops of side 1 with one shape that moves, turns, grows and deforms; some of its points are found, with noise."""
    rng = np.random.default_rng(seed)
    modes = np.random.default_rng(2).normal(scale=0.05, size=(8, points, 2))
    shape = np.random.default_rng(3).random((points, 2))
    truth = shape + np.einsum("nm,mlc->nlc", rng.normal(size=(images, len(modes))), modes)
    discovered = truth[:, :landmarks] + rng.normal(scale=0.02, size=(images, min(points, landmarks), 2))

    def thinned(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(rng.random((*xy.shape[:2], 1)) < missing, np.nan, xy)

    ones = np.ones(images)
    return LandmarkSet(thinned(discovered), thinned(truth), 0.5 * ones, ones)
