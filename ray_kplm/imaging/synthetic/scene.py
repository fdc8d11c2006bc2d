"""Surroundings of the synthetic object: textured, cluttered backgrounds, and the camera's blur and noise."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Image = NDArray[np.uint8]

SUPERSAMPLING = 2  # side of a painted canvas over the side of its image


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the RGB colour, 0 to 255, of a hue (modulo 1), a saturation and a value from 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return 255 * red, 255 * green, 255 * blue


def any_colour(rng: np.random.Generator) -> Colour:
    """Draw a random colour."""
    return hsv(rng.uniform(), rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.95))


def smooth_noise(rng: np.random.Generator, side: int, cells: int) -> NDArray[np.float32]:
    """Draw smooth noise (side, side), about -1 to 1, with `cells` bumps across."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    noise: NDArray[np.float32] = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return noise


def background(rng: np.random.Generator, side: int) -> Image:
    """Draw a background (side, side, 3): a texture, clutter, and spots that resemble the object's own markings."""
    canvas = texture(rng, side)
    for _ in range(rng.integers(3, 11)):
        clutter(rng, canvas)
    for _ in range(rng.integers(0, 5)):
        distractor(rng, canvas)
    return canvas


def texture(rng: np.random.Generator, side: int) -> Image:
    """Draw a texture (side, side, 3): two colours mixed by noise, stripes, a gradient or a chequerboard."""
    first, second = np.array([any_colour(rng), any_colour(rng)], np.float32)
    angle = rng.uniform(0, np.pi)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    along = np.float32(np.cos(angle)) * axis + np.float32(np.sin(angle)) * axis[:, None]
    noise = smooth_noise(rng, side, int(rng.integers(4, 24)))
    match rng.integers(4):
        case 0:
            mix = noise
        case 1:
            mix = np.sin(np.float32(rng.uniform(6, 40)) * along + noise)
        case 2:
            mix = along + 0.4 * noise
        case _:
            wave = np.sin(np.float32(rng.uniform(4, 14)) * axis)
            mix = np.sign(wave * wave[:, None]) + 0.3 * noise
    mix = np.clip(0.5 + 0.5 * mix, 0, 1)[..., None]
    image: Image = (first + mix * (second - first)).astype(np.uint8)
    return image


def clutter(rng: np.random.Generator, canvas: Image) -> None:
    """Draw one random polygon, disc, ring or bar of any colour."""
    side = len(canvas)
    centre, colour = rng.uniform(0, side, 2), any_colour(rng)
    reach = rng.uniform(0.04, 0.22) * side
    match rng.integers(4):
        case 0:
            corners = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            points = centre + reach * np.stack([np.cos(corners), np.sin(corners)], axis=1)
            cv2.fillPoly(canvas, [points.astype(np.int32)], colour, cv2.LINE_AA)
        case 1:
            cv2.circle(canvas, centre.astype(int).tolist(), int(reach), colour, -1, cv2.LINE_AA)
        case 2:
            width = max(1, int(0.3 * reach))
            cv2.circle(canvas, centre.astype(int).tolist(), int(reach), colour, width, cv2.LINE_AA)
        case _:
            end = (centre + 3 * reach * rng.uniform(-1, 1, 2)).astype(int).tolist()
            width = max(1, int(0.25 * reach))
            cv2.line(canvas, centre.astype(int).tolist(), end, colour, width, cv2.LINE_AA)


def distractor(rng: np.random.Generator, canvas: Image) -> None:
    """Draw a spot within a spot, like an eye or a cheek, so that a landmark cannot be found by its appearance alone."""
    side = len(canvas)
    centre = rng.uniform(0, side, 2).astype(int).tolist()
    radius = rng.uniform(0.02, 0.05) * side
    for share in (1.0, 0.5):
        cv2.circle(canvas, centre, max(1, int(share * radius)), any_colour(rng), -1, cv2.LINE_AA)


def canvas_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert image pixels (..., 2) to canvas pixels: image pixel i covers canvas pixels F * i to F * i + F - 1."""
    return SUPERSAMPLING * xy + (SUPERSAMPLING - 1) / 2


def photograph(rng: np.random.Generator, canvas: Image, size: int) -> Image:
    """Return a photograph (size, size, 3) of a finer canvas (S, S, 3): downsampled, blurred, exposed and noisy."""
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    sigma = rng.uniform(0, 0.006) * size
    if sigma > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 6))
    exposed: Image = np.clip(image * np.float32(rng.uniform(0.8, 1.1)) + noise + 0.5, 0, 255).astype(np.uint8)
    return exposed
