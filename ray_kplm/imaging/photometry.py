"""Colour, blur and noise of views, in place: one pass over the pixels for each change that a view has."""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.view_parameters import ViewParameters

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as `cv2.cvtColor` has them."""
_WHITE = 255.0
NOISE_VALUES = 2**20
"""Standard normal values in the table of noise: 1 MiB, and 3 for noise that is equal in all channels."""
NOISE_SCALE, NOISE_ZERO = 32, 128
"""Steps of the table in a standard deviation, and the entry that stands for 0: values reach 4 standard deviations."""
_CUT_OFF = 3.5
"""Standard deviations at which a Gaussian is cut off."""
_NOISE_SEED = 2026


def change(picture: NDArray[np.uint8], parameters: ViewParameters, index: int) -> None:
    """Change brightness, contrast, saturation, hue, blur and noise of a picture, in this order, as a view's parameters say.

    Args:
        picture: (S, S, 3), RGB, contiguous; it is overwritten.
        parameters: Of a batch of views.
        index: Of the view.
    """
    p = parameters
    _light(picture, float(p.brightness[index]), float(p.contrast[index]))
    if (saturation := float(p.saturation[index])) != 1:
        _saturate(picture, saturation)
    if hue := float(p.hue[index]):
        _turn_hue(picture, hue)
    if sigma := float(p.blur[index]):
        _blur(picture, sigma)
    if noise := float(p.noise[index]):
        _add_noise(picture, noise, bool(p.noise_per_channel[index]), int(p.noise_seed[index]))


def _light(picture: NDArray[np.uint8], brightness: float, contrast: float) -> None:
    """Multiply all values, then their distance from the mean grey."""
    if brightness == 1 and contrast == 1:
        return
    flat = picture.reshape(len(picture), -1)
    if brightness > 1:  # what becomes brighter than white is white before the contrast changes
        cv2.min(flat, math.ceil(_WHITE / brightness), flat)
    grey = brightness * sum(map(operator.mul, cv2.mean(picture), GREY)) if contrast != 1 else 0.0
    cv2.addWeighted(flat, brightness * contrast, flat, 0.0, (1 - contrast) * grey, flat)


def _saturate(picture: NDArray[np.uint8], factor: float) -> None:
    """Multiply the distance of each value from the pixel's grey."""
    cv2.transform(picture, factor * np.eye(3) + (1 - factor) * np.array(GREY), picture)


def _turn_hue(picture: NDArray[np.uint8], share: float) -> None:
    """Add a share of the circle to the hue, which has 256 steps."""
    cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL, picture)
    picture[..., 0] += np.uint8(round(256 * share) % 256)
    cv2.cvtColor(picture, cv2.COLOR_HSV2RGB_FULL, picture)


def blur_reach(sigma: Any) -> NDArray[np.int64]:
    """Return at how many pixels Gaussians are cut off, of the shape of `sigma`."""
    return np.floor(_CUT_OFF * np.asarray(sigma)).astype(np.int64)


def _blur(picture: NDArray[np.uint8], sigma: float) -> None:
    """Convolve with a Gaussian."""
    reach = int(blur_reach(sigma))
    if reach:
        cv2.GaussianBlur(picture, (2 * reach + 1, 2 * reach + 1), sigma, picture)


def _add_noise(picture: NDArray[np.uint8], deviation: float, per_channel: bool, seed: int) -> None:
    """Add normal noise, from a table at a place that the seed decides.

    Args:
        picture: (S, S, 3).
        deviation: Standard deviation, share of full scale.
        per_channel: Whether the channels have values of their own.
        seed: Of the values.
    """
    table = noise_steps(picture.size, per_channel)
    start = (seed % NOISE_VALUES) * (1 if per_channel else 3)
    noise = table[start : start + picture.size].reshape(picture.shape)
    scale = _WHITE * deviation / NOISE_SCALE
    cv2.addWeighted(picture, 1.0, noise, scale, -NOISE_ZERO * scale, picture)


@lru_cache(maxsize=4)
def noise_steps(length: int, per_channel: bool) -> NDArray[np.uint8]:
    """Return the table of noise, long enough for `length` values from every start, and read-only."""
    values = np.random.default_rng(_NOISE_SEED).standard_normal(NOISE_VALUES, dtype=np.float32)
    steps = np.clip(np.rint(NOISE_SCALE * values) + NOISE_ZERO, 0, 255).astype(np.uint8)
    steps = steps if per_channel else steps.repeat(3)
    table = np.resize(steps, len(steps) + length)
    table.flags.writeable = False
    return table
