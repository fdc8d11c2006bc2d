"""Surroundings of the side-view category: sky, hills, grass, trees, fences and clutter."""

from __future__ import annotations

import cv2
import numpy as np

from ray_kplm.imaging.synthetic.scene import Colour, Image, any_colour, clutter, distractor, hsv, smooth_noise, texture

FENCE_SHARE = 0.55
WALL_SHARE = 0.2


def draw_meadow(rng: np.random.Generator, side: int, ground: float) -> Image:
    """Draw a scene (side, side, 3) for an animal whose feet stand, or will land, at the height `ground`, pixels."""
    horizon = ground - rng.uniform(0.04, 0.75) * side
    canvas = backdrop(rng, side, horizon)
    grass(rng, canvas, horizon)
    for _ in range(rng.integers(0, 5)):
        bush(rng, canvas, horizon)
    if rng.uniform() < FENCE_SHARE:
        fence(rng, canvas, horizon, ground)
    for _ in range(rng.integers(0, 3)):
        clutter(rng, canvas)
    for _ in range(rng.integers(0, 3)):
        distractor(rng, canvas)
    return out_of_focus(rng, canvas)


def out_of_focus(rng: np.random.Generator, canvas: Image) -> Image:
    """Blur a background and lower its contrast, as a camera does that is focused on what is in front, in hazy air."""
    blurred = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.003, 0.016) * len(canvas)).astype(np.float32)
    mean = np.array(cv2.mean(blurred)[:3], np.float32)
    hazy: Image = (mean + np.float32(rng.uniform(0.4, 0.8)) * (blurred - mean)).astype(np.uint8)
    return hazy


def backdrop(rng: np.random.Generator, side: int, horizon: float) -> Image:
    """Draw what is above the horizon: a wall, or a sky that fades to the horizon, with clouds and hills."""
    if rng.uniform() < WALL_SHARE:
        return texture(rng, side)
    hue, value = rng.uniform(0.5, 0.65), rng.uniform(0.5, 1.0)
    high, low = hsv(hue, rng.uniform(0.05, 0.6), value), hsv(hue, rng.uniform(0.0, 0.2), min(1.0, 1.15 * value))
    down = np.linspace(0, 1, side, dtype=np.float32)[:, None] + 0.35 * smooth_noise(rng, side, int(rng.integers(3, 8)))
    mix = np.clip(down, 0, 1)[..., None]
    canvas: Image = (np.array(high, np.float32) + mix * np.subtract(low, high, dtype=np.float32)).astype(np.uint8)
    for _ in range(rng.integers(0, 3)):
        line = horizon + rng.uniform(-0.25, 0.02) * side + 0.12 * side * smooth_noise(rng, side, 5)[0]
        colour = hsv(rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4), rng.uniform(0.25, 0.7))
        canvas[np.arange(side)[:, None] > line] = np.array(colour, np.uint8)
    return canvas


def grass(rng: np.random.Generator, canvas: Image, horizon: float) -> None:
    """Draw the ground below the horizon: grass, straw, earth or snow, with blades and shades."""
    side = len(canvas)
    hue, saturation = rng.uniform(0.07, 0.38), rng.uniform(0.05, 0.65)
    base = np.array(hsv(hue, saturation, rng.uniform(0.3, 0.85)), np.float32)
    shade = smooth_noise(rng, side, int(rng.integers(5, 14))) + 0.6 * smooth_noise(rng, side, 40)
    ground = np.clip(base * (1 + np.float32(rng.uniform(0.04, 0.2)) * shade[..., None]), 0, 255).astype(np.uint8)
    slope = rng.uniform(-0.06, 0.06)
    below = np.arange(side)[:, None] > horizon + slope * (np.arange(side) - side / 2)
    canvas[below] = ground[below]
    for _ in range(rng.integers(0, 120)):
        x, depth, height = rng.uniform(0, side), rng.uniform(0, 1), rng.uniform(0.02, 0.06) * side
        y = horizon + depth * (side - horizon)
        tip = (x + rng.uniform(-0.5, 0.5) * height, y - height * (0.4 + depth))
        colour = hsv(hue + rng.uniform(-0.03, 0.03), saturation, rng.uniform(0.25, 0.95))
        cv2.line(canvas, (int(x), int(y)), (int(tip[0]), int(tip[1])), colour, max(1, side // 150), cv2.LINE_AA)


def bush(rng: np.random.Generator, canvas: Image, horizon: float) -> None:
    """Draw a bush or a tree at the horizon: a cloud of leaves, at times on a trunk."""
    side = len(canvas)
    x, radius = rng.uniform(0, side), rng.uniform(0.04, 0.14) * side
    y = horizon - rng.uniform(-0.3, 0.8) * radius
    hue = rng.uniform(0.15, 0.42)
    if rng.uniform() < 0.5:
        y -= 1.6 * radius
        bark = hsv(0.07, 0.4, rng.uniform(0.15, 0.45))
        foot = (int(x), int(horizon + 0.3 * radius))
        cv2.line(canvas, (int(x), int(y)), foot, bark, max(1, int(0.3 * radius)), cv2.LINE_AA)
    for _ in range(12):
        centre = (np.array([x, y]) + radius * rng.uniform(-0.8, 0.8, 2)).astype(int).tolist()
        leaves = hsv(hue, rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.55))
        cv2.circle(canvas, centre, max(1, int(radius * rng.uniform(0.25, 0.55))), leaves, -1, cv2.LINE_AA)


def fence(rng: np.random.Generator, canvas: Image, horizon: float, ground: float) -> None:
    """Draw a fence between horizon and animal: posts at equal distances and one to four rails or wires."""
    side = len(canvas)
    foot = horizon + rng.uniform(0.1, 0.95) * (ground - horizon)
    height = rng.uniform(0.2, 0.55) * side
    slope = rng.uniform(-0.08, 0.08)
    wood: Colour = (
        any_colour(rng) if rng.uniform() < 0.25 else hsv(0.08, rng.uniform(0.0, 0.45), rng.uniform(0.2, 0.95))
    )
    shadow = (0.6 * wood[0], 0.6 * wood[1], 0.6 * wood[2])
    rail, post = rng.uniform(0.006, 0.028) * side, rng.uniform(0.015, 0.045) * side

    def line(start: tuple[float, float], end: tuple[float, float], width: float) -> None:
        for colour, extra in ((shadow, 1), (wood, 0)):
            ends = [(int(x), int(y) + extra) for x, y in (start, end)]
            cv2.line(canvas, ends[0], ends[1], colour, max(1, round(width)), cv2.LINE_AA)

    for level in np.linspace(0.3, 0.9, rng.integers(1, 5)):
        y = foot - level * height
        line((0, y - slope * side / 2), (side, y + slope * side / 2), rail)
    step = rng.uniform(0.18, 0.45) * side
    for x in np.arange(rng.uniform(0, step), side, step):
        y = foot + slope * (x - side / 2)
        line((x, y), (x, y - height), post)


def ground_shadow(rng: np.random.Generator, canvas: Image, xy: tuple[float, float], half_width: float) -> None:
    """Darken a flat ellipse around a ground position xy, pixels, in place; in dull light there is no shadow."""
    strength = max(0.0, rng.uniform(-0.2, 0.5))
    at = np.arange(len(canvas), dtype=np.float32)
    reach = ((at - xy[0]) / half_width) ** 2 + ((at[:, None] - xy[1]) / (0.16 * half_width)) ** 2
    shade = np.asarray(strength * np.clip(1.3 - reach, 0, 1), np.float32)
    canvas[:] = (canvas * (1 - shade[..., None])).astype(np.uint8)
