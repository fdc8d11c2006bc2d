"""The random numbers of views, drawn for a whole batch before an image is read.

Number n of a stream is a function of the view's seed, the stream and n (SplitMix64, Steele et al., OOPSLA 2014, has random
access). So a view does not depend on the batch that it is drawn in, transforms do not share random numbers, and what one
transform draws does not change what another one gets.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import AugmentConfig

WARP_NODES = 4
"""Random shifts along a side of a smooth warp, with cubic interpolation between them."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class _Stream(IntEnum):
    """The random numbers of one transform. The numbers are part of what a seed means: add new ones at the end."""

    MOTION = 1
    BRIGHTNESS = 2
    COLOUR = 3
    BLUR = 4
    NOISE = 5
    WARP = 6
    PASTE = 7
    EXTRA = 8


@dataclass(frozen=True)
class ViewParameters:
    """What is done to the inputs of B views. The input is the letterboxed crop, of side S.

    Attributes:
        flip: bool (B,), whether the view is mirrored.
        zoom: (B,), factor.
        rotation: (B,), degrees, from the x axis to the y axis.
        shift: (B, 2), share of the side.
        brightness: (B,), factor on all values.
        contrast: (B,), factor on the distance from the picture's mean grey.
        saturation: (B,), factor; 1 where the colour is not changed.
        hue: (B,), share of the circle; 0 where the colour is not changed.
        blur: (B,), sigma of a Gaussian, pixels; 0 where the view is not blurred.
        noise: (B,), standard deviation, share of full scale; 0 where the view has none.
        noise_per_channel: bool (B,), whether the noise of the channels differs.
        noise_seed: uint64 (B,), of the noise's values.
        warp: (B, WARP_NODES, WARP_NODES, 2), shifts of the nodes, share of the side.
        paste: bool (B,), whether the object is pasted on another background, where it has a box.
        paste_shift: (B, 2), by which a pasted object moves, share of the side.
        extra_seed: uint64 (B,), of the transforms of `augment.extra`.
    """

    flip: NDArray[np.bool_]
    zoom: NDArray[np.float64]
    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]
    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]
    saturation: NDArray[np.float64]
    hue: NDArray[np.float64]
    blur: NDArray[np.float64]
    noise: NDArray[np.float64]
    noise_per_channel: NDArray[np.bool_]
    noise_seed: NDArray[np.uint64]
    warp: NDArray[np.float64]
    paste: NDArray[np.bool_]
    paste_shift: NDArray[np.float64]
    extra_seed: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.flip)

    def rows(self, chosen: Any) -> ViewParameters:
        """Return the parameters of some views: a slice or an index array."""
        return ViewParameters(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def input_to_view(self, size: int) -> NDArray[np.float64]:
        """Return the affine maps (B, 2, 3) of the input's points to the views.

        They mirror, zoom and rotate about the centre, and shift at last.

        Args:
            size: Side S, pixels.
        """
        angle, centre = np.radians(self.rotation), (size - 1) / 2
        linear = np.empty((len(self), 2, 2))
        linear[:, 0, 0] = linear[:, 1, 1] = np.cos(angle)
        linear[:, 1, 0] = np.sin(angle)
        linear[:, 0, 1] = -linear[:, 1, 0]
        linear *= self.zoom[:, None, None]
        linear[:, :, 0] *= np.where(self.flip, -1.0, 1.0)[:, None]
        offset = centre - linear.sum(axis=2) * centre + self.shift * size
        return np.concatenate([linear, offset[..., None]], axis=2)


def draw_views(config: AugmentConfig, seeds: NDArray[np.integer[Any]], flip: NDArray[np.bool_]) -> ViewParameters:
    """Draw the parameters of views.

    Args:
        config: Ranges of the transforms.
        seeds: (B,), of the views.
        flip: (B,), whether the views are mirrored.
    """
    count, none = len(seeds), np.zeros(len(seeds))
    motion = _uniform(seeds, _Stream.MOTION, 4)
    light = _uniform(seeds, _Stream.BRIGHTNESS, 2)
    colour = _uniform(seeds, _Stream.COLOUR, 3)
    blur = _uniform(seeds, _Stream.BLUR, 2)
    noise = _uniform(seeds, _Stream.NOISE, 3)
    nodes = _uniform(seeds, _Stream.WARP, 2 * WARP_NODES**2) if config.warp else np.full((count, 32), 0.5)
    paste = _uniform(seeds, _Stream.PASTE, 3)
    coloured = colour[:, 0] < config.colour_share
    return ViewParameters(
        flip=np.asarray(flip, bool),
        zoom=_between(motion[:, 0], config.scale),
        rotation=_between(motion[:, 1], (-config.rotate, config.rotate)),
        shift=_between(motion[:, 2:], (-config.translate, config.translate)),
        brightness=_between(light[:, 0], config.brightness),
        contrast=_between(light[:, 1], config.contrast),
        saturation=np.where(coloured, _between(colour[:, 1], config.saturation), 1.0),
        hue=np.where(coloured, _between(colour[:, 2], config.hue), 0.0),
        blur=np.where(blur[:, 0] < config.blur_share, blur[:, 1] * config.blur, none),
        noise=np.where(noise[:, 0] < config.noise_share, noise[:, 1] * config.noise, none),
        noise_per_channel=noise[:, 2] < 0.5,
        noise_seed=_bits(seeds, _Stream.NOISE, 4)[:, 3],
        warp=_between(nodes, (-config.warp, config.warp)).reshape(count, WARP_NODES, WARP_NODES, 2),
        paste=paste[:, 0] < config.paste,
        paste_shift=_between(paste[:, 1:], (-config.paste_shift, config.paste_shift)),
        extra_seed=_bits(seeds, _Stream.EXTRA, 1)[:, 0],
    )


def _between(uniform: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def _uniform(seeds: NDArray[np.integer[Any]], stream: _Stream, count: int) -> NDArray[np.float64]:
    """Return the first numbers of a stream of each seed, from 0 to below 1: (B, count)."""
    return (_bits(seeds, stream, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _bits(seeds: NDArray[np.integer[Any]], stream: _Stream, count: int) -> NDArray[np.uint64]:
    """Return the first numbers of a stream of each seed as 64 random bits: (B, count)."""
    jump = np.uint64(int(stream) * int(_GOLDEN) % 2**64)
    start = _mix(_mix(np.asarray(seeds).astype(np.uint64) + _GOLDEN) + jump)
    return _mix(start[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the output function of SplitMix64: a bijection whose output bits all depend on all input bits."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
