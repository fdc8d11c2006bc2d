"""`kplm bench evaluation`: CPU time of the metrics, on synthetic landmarks of the size of the field's test sets."""

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

_DRAWS, _TRAIN_IMAGES = 10, 300
"""Number of draws, and of training images in each."""
_MISSING = 0.05
"""Share of points that are not annotated and of landmarks that are not detected, in the second measurement."""


def bench(images: int, points: int, landmarks: int, progress: ProgressCallback) -> dict[str, Any]:
    """Measure the CPU seconds of forward NME and backward NME over ten draws, and of all scores, in this process.

    Each is measured on complete and on incomplete landmarks.

    Args:
        images: Number of test images, and of training images.
        points: Number of annotated points, L.
        landmarks: Number of discovered landmarks, K <= L.
        progress: Called before each measurement.
    """
    results: dict[str, Any] = {"test_images": images, "points": points, "landmarks": landmarks, "draws": _DRAWS}
    for share, name, missing in ((0.0, "complete", 0.0), (0.5, "missing", _MISSING)):
        progress(share, f"{name} annotation")
        train, test = (_synthetic(seed, images, points, landmarks, missing) for seed in (0, 1))
        results |= {f"{score}_s_{name}": seconds for score, seconds in _measured(train, test).items()}
    progress(1.0, "all measurements")
    return results


def _measured(train: LandmarkSet, test: LandmarkSet) -> dict[str, float]:
    filled = [np.nan_to_num(part.discovered, nan=0.5) for part in (train, test)]
    forward = (filled[0], train.truth, filled[1], test.truth, test.normaliser)
    backward = (train.discovered, train.truth, test.discovered, test.truth, test.normaliser)
    return {
        "forward": _seconds(lambda: forward_nme(*forward, train_images=_TRAIN_IMAGES, draws=_DRAWS)),
        "backward": _seconds(lambda: backward_nme(*backward, train_images=_TRAIN_IMAGES, draws=_DRAWS)),
        "all_figures": _seconds(lambda: evaluate_landmarks(train, test)),
    }


def _seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _synthetic(seed: int, images: int, points: int, landmarks: int, missing: float) -> LandmarkSet:
    """Return landmarks of one deforming shape in crops of side 1, of which the first K points are detected with noise."""
    rng = np.random.default_rng(seed)
    modes = np.random.default_rng(2).normal(scale=0.05, size=(8, points, 2))
    shape = np.random.default_rng(3).random((points, 2))
    truth = shape + np.einsum("nm,mlc->nlc", rng.normal(size=(images, len(modes))), modes)
    discovered = truth[:, :landmarks] + rng.normal(scale=0.02, size=(images, min(points, landmarks), 2))

    def thinned(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(rng.random((*xy.shape[:2], 1)) < missing, np.nan, xy)

    ones = np.ones(images)
    return LandmarkSet(thinned(discovered), thinned(truth), 0.5 * ones, ones)
