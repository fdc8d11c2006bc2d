"""How large the objects of images are and how many an image has, without boxes, by windows that look alike across images.

For each of several window sizes, templates are fitted to one half of the images: the mean of the best window of each image,
until the windows stay (the latent place of Felzenszwalb et al. 2010, without negatives). The other half tells how much better
a template fits images than the same images upside down, which have the same texture but no such object. Windows that fit
better than 95 % of the upside-down images do anywhere are objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELLS = 24
"""Cells along each side of the maps."""
WINDOWS = (6, 8, 12, 17)
"""Sides of the windows, cells."""
_TEMPLATES, _REFITS = 8, 6
_STRONG = 0.6
"""Quantile of the windows' gradient above which a template may start."""
_AT_ONCE = 20
"""Images whose windows are in memory at a time: the windows of one take 10 MB at most."""
_FALSE_ALARMS = 0.05
_APART = 0.6
"""Two objects are at least this share of a window apart."""
_MOST = 12
"""Objects of an image that are counted."""


@dataclass(frozen=True)
class ObjectWindow:
    """The window size whose template tells images best from upside-down ones.

    Attributes:
        side: Of the window, share of the image's side.
        contrast: Difference of the best fits in images and in upside-down images, in standard deviations.
        hits: Share of the images with a window that fits.
        objects: Mean number of windows that fit in the images that have one.
        places: For each image of the second half, windows that fit: x0, y0, x1, y1 as shares of the side, (n, 4).
    """

    side: float
    contrast: float
    hits: float
    objects: float
    places: list[NDArray[np.float64]]


def find_objects(maps: NDArray[np.float32], upside_down: NDArray[np.float32], seed: int = 0) -> ObjectWindow:
    """Return the window size of the greatest contrast, and how many objects an image has.

    Args:
        maps: (N, CELLS, CELLS, d), feature maps of whole images, N at least 4.
        upside_down: (N, CELLS, CELLS, d), those of the same images upside down.
        seed: Of the windows that templates start from.
    """
    maps, upside_down = maps - maps.mean(axis=(0, 1, 2)), upside_down - upside_down.mean(axis=(0, 1, 2))
    found = [_of_size(maps, upside_down, window, np.random.default_rng([seed, window])) for window in WINDOWS]
    return max(found, key=lambda one: one.contrast)


def _of_size(
    maps: NDArray[np.float32], upside_down: NDArray[np.float32], window: int, rng: np.random.Generator
) -> ObjectWindow:
    half = len(maps) // 2
    templates = _fit(maps[:half], window, rng)
    fits, others = (_responses(of, templates, window) for of in (maps[half:], upside_down[half:]))
    best, chance = fits.max(axis=1), others.max(axis=1)
    spread = np.sqrt((best.var(axis=0) + chance.var(axis=0)) / 2)
    contrast = (best.mean(axis=0) - chance.mean(axis=0)) / np.maximum(spread, 1e-9)
    chosen = int(contrast.argmax())
    least = float(np.quantile(chance[:, chosen], 1 - _FALSE_ALARMS))
    places = [_places(one, least, window) for one in fits[:, :, chosen]]
    counts = np.array([len(one) for one in places])
    some = counts[counts > 0]
    objects = float(some.mean()) if len(some) else 0.0
    return ObjectWindow(window / CELLS, float(contrast[chosen]), float((counts > 0).mean()), objects, places)


def _windows(maps: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Return all windows of maps (N, h, w, d): (N, P * P, window * window * d)."""
    views = np.lib.stride_tricks.sliding_window_view(maps, (window, window), axis=(1, 2))
    return views.reshape(len(maps), views.shape[1] * views.shape[2], -1)


def _fit(maps: NDArray[np.float32], window: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return templates of unit norm, (_TEMPLATES, D), from windows of random images with much gradient."""
    starts = []
    for image in rng.integers(0, len(maps), _TEMPLATES).tolist():
        windows = _windows(maps[image : image + 1], window)[0]
        energy = np.linalg.norm(windows, axis=1)
        starts.append(windows[rng.choice(np.flatnonzero(energy >= np.quantile(energy, _STRONG)))])
    templates = _unit(np.array(starts))
    for _ in range(_REFITS):
        best = _responses(maps, templates, window).argmax(axis=1)
        total = np.zeros_like(templates)
        for start in range(0, len(maps), _AT_ONCE):
            windows = _windows(maps[start : start + _AT_ONCE], window)
            places = best[start : start + _AT_ONCE]
            for template in range(_TEMPLATES):
                total[template] += _unit(windows[np.arange(len(windows)), places[:, template]]).sum(axis=0)
        templates = _unit(total)
    return templates


def _responses(maps: NDArray[np.float32], templates: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Return the cosines of all windows with the templates, damped where there is little gradient: (N, P * P, T)."""
    pieces = []
    for start in range(0, len(maps), _AT_ONCE):
        windows = _windows(maps[start : start + _AT_ONCE], window)
        norms = np.linalg.norm(windows, axis=2, keepdims=True)
        pieces.append(windows @ templates.T / (norms + np.float32(0.5) * np.median(norms) + np.float32(1e-9)))
    return np.concatenate(pieces)


def _places(fits: NDArray[np.float32], least: float, window: int) -> NDArray[np.float64]:
    """Return the best windows of an image, (P * P,) fits, that are apart: (n, 4), shares of the side."""
    positions = CELLS - window + 1
    waiting, reach, found = fits.reshape(positions, positions).copy(), max(1, round(_APART * window)), []
    while len(found) < _MOST:
        y, x = divmod(int(waiting.argmax()), positions)
        if waiting[y, x] <= least:
            break
        found.append((x, y, x + window, y + window))
        waiting[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = -np.inf
    return np.array(found, np.float64).reshape(-1, 4) / CELLS


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit
