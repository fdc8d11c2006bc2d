"""Painting of a synthetic creature: its face on a chart wrapped around the head, and the parts that stand off the head."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.synthetic.creature import NOSE_KNOB, SIDES, Creature, Floats, View, extent, sphere_to_chart
from ray_kplm.imaging.synthetic.scene import Colour, Image, hsv, smooth_noise

# Half the width of the painted chart: 105 degrees around the head to either side; its border repeats beyond.
CHART_REACH = 2.6
# cv2 takes fixed-point coordinates: this many binary digits after the point.
SHIFT = 4

WHITE: Colour = (240.0, 240.0, 235.0)
DARK: Colour = (18.0, 14.0, 22.0)


@dataclass(frozen=True)
class Coat:
    """Colours and texture of one instance, and the light on it."""

    skin: Colour
    pattern: Colour
    iris: Colour
    spot: Colour
    gem: Colour
    nose: Colour
    lips: Colour
    tuft: Colour
    horn: Colour
    texture: int  # 0 plain, 1 bands, 2 spots
    light: Floats = field(repr=False)  # (3,), unit norm, camera axes: towards the light
    ambient: float


def draw_coat(rng: np.random.Generator) -> Coat:
    """Draw a random coat; markings have hues far from the skin's, so that each is distinct."""
    hue = rng.uniform()

    def against(low: float, high: float, saturation: float = 0.8, value: float = 0.9) -> Colour:
        return hsv(hue + rng.uniform(low, high), saturation, value * rng.uniform(0.85, 1.0))

    light = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.3), 1.0])
    return Coat(
        skin=hsv(hue, rng.uniform(0.25, 0.75), rng.uniform(0.55, 0.95)),
        pattern=hsv(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.6)),
        iris=hsv(rng.uniform(), 0.8, 0.75),
        spot=against(0.3, 0.7, 0.85, 0.4),
        gem=against(0.35, 0.65, 0.9, 1.0),
        nose=against(0.2, 0.8, 0.8, 0.35),
        lips=against(0.25, 0.75, 0.8, 0.65),
        tuft=against(0.3, 0.7, 0.6, 0.45),
        horn=against(0.2, 0.8, 0.5, 0.55),
        texture=int(rng.integers(3)),
        light=light / np.linalg.norm(light),
        ambient=rng.uniform(0.35, 0.6),
    )


def paint(rng: np.random.Generator, canvas: Image, creature: Creature, coat: Coat, view: View) -> None:
    """Paint the creature over a canvas.

    Args:
        rng: Draws the texture of the skin.
        canvas: (S, S, 3), painted in place.
        creature: The shape.
        coat: Colours and light.
        view: Projects into the pixels of the canvas.
    """
    chart = paint_chart(rng, creature, coat, side=int(5.5 * view.pixels_per_unit) | 1)
    growths = [(creature.antenna(side)[0], antenna, side) for side in (0, 1)]
    growths += [(creature.ear(side)[[0, 2]].mean(0), ear, side) for side in (0, 1)]
    in_front = [view.facing(root[None])[0] > 0 for root, _, _ in growths]
    for (_, grow, side), front in zip(growths, in_front, strict=True):
        if not front:
            grow(canvas, creature, coat, view, side)
    chin(canvas, creature, coat, view)
    wrap(canvas, chart, coat, view)
    if view.facing(creature.surface(0.0, creature.chin_y)[None])[0] > 0:
        chin(canvas, creature, coat, view)
    for (_, grow, side), front in zip(growths, in_front, strict=True):
        if front:
            grow(canvas, creature, coat, view, side)
    nose(canvas, creature, coat, view)


# ---- the face, flat


class Chart:
    """A square image of the chart, painted in chart units."""

    def __init__(self, image: Image) -> None:
        """Paint on the image (side, side, 3), in place."""
        self.image = image
        self.step = (len(image) - 1) / (2 * CHART_REACH)

    def points(self, xy: Floats) -> NDArray[np.int32]:
        """Return chart positions (N, 2) as fixed-point pixels (N, 2) of cv2."""
        return np.rint((np.asarray(xy) + CHART_REACH) * self.step * (1 << SHIFT)).astype(np.int32)

    def disc(self, x: float, y: float, radius: float, colour: Colour, squash: float = 1.0) -> None:
        """Paint a disc, of `squash` times its width in height."""
        axes = np.rint(np.array([radius, radius * squash]) * self.step * (1 << SHIFT)).astype(int).tolist()
        centre = self.points(np.array([[x, y]]))[0].tolist()
        cv2.ellipse(self.image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, SHIFT)

    def line(self, xy: Floats, width: float, colour: Colour) -> None:
        """Paint a line through points (N, 2)."""
        pixels = max(1, round(width * self.step))
        cv2.polylines(self.image, [self.points(xy)], False, colour, pixels, cv2.LINE_AA, SHIFT)

    def fill(self, xy: Floats, colour: Colour) -> None:
        """Fill the polygon of points (N, 2)."""
        cv2.fillPoly(self.image, [self.points(xy)], colour, cv2.LINE_AA, SHIFT)


def paint_chart(rng: np.random.Generator, creature: Creature, coat: Coat, side: int) -> Image:
    """Return the chart (side, side, 3) from -CHART_REACH to CHART_REACH: skin and markings, mirror symmetric."""
    chart = Chart(skin(rng, coat, side))
    x, y = creature.eye
    radius, opening = creature.eye_radius, creature.eye_opening
    chart.disc(x, y, 1.18 * radius, DARK, opening)
    chart.disc(x, y, radius, WHITE, opening)
    chart.disc(x, y, 0.66 * radius, coat.iris, min(opening, 1.0))
    chart.disc(x, y, 0.38 * radius, DARK)
    brow = np.array([[-0.9, -1.35], [0.1, -1.65], [1.0, -1.3]]) * radius + (x, y)
    chart.line(brow, 0.3 * radius, coat.tuft)
    chart.disc(*creature.cheek, 1.0 * creature.cheek_radius, coat.spot)
    chart.disc(*creature.cheek, 0.48 * creature.cheek_radius, WHITE)
    chart.disc(0.0, creature.forehead_y, 0.21, DARK, 1.25)
    chart.disc(0.0, creature.forehead_y, 0.15, coat.gem, 1.25)
    paint_mouth(chart, creature, coat)
    # Only the right half has been painted.
    chart.image[:, : side // 2] = chart.image[:, : side // 2 : -1]
    return chart.image


def skin(rng: np.random.Generator, coat: Coat, side: int) -> Image:
    """Return skin (side, side, 3), side odd: a mottled base colour with bands, spots or neither, mirror symmetric."""
    half = side // 2 + 1
    mottle = smooth_noise(rng, side, 14)[:, :half]
    match coat.texture:
        case 0:
            mix = 0.2 * mottle
        case 1:
            height = np.linspace(-CHART_REACH, CHART_REACH, side, dtype=np.float32)[:, None]
            waver = 1.5 * smooth_noise(rng, side, 5)[:, :half]
            mix = 0.5 * np.sin(np.float32(rng.uniform(5, 10)) * height + waver)
        case _:
            mix = 1.6 * (smooth_noise(rng, side, 22)[:, :half] - 0.45)
    base, pattern = np.array(coat.skin, np.float32), np.array(coat.pattern, np.float32)
    mix = np.clip(mix + 0.1 * mottle, 0, 0.6)[..., None]
    left = (base + mix * (pattern - base)).astype(np.uint8)
    return np.concatenate([left, left[:, -2::-1]], axis=1)


def paint_mouth(chart: Chart, creature: Creature, coat: Coat) -> None:
    """Paint a dark opening between two lips, dimples at the corners and a pale spot at the middle of the lower lip."""
    half_width, corner_y = creature.mouth
    t = np.linspace(0, 1, 7)
    arch = 1 - t**2
    upper = np.stack([half_width * t, corner_y + creature.smile * arch], axis=1)
    lower = upper + np.stack([0 * t, creature.mouth_open * arch], axis=1)
    chart.fill(np.concatenate([upper, lower[::-1]]), DARK)
    chart.line(upper, 0.09, coat.lips)
    chart.line(lower, 0.12, coat.lips)
    chart.disc(half_width, corner_y, 0.13, coat.lips)
    chart.disc(half_width, corner_y, 0.075, DARK)
    chart.disc(*creature.lower_lip, 0.085, WHITE)


def wrap(canvas: Image, chart: Image, coat: Coat, view: View) -> None:
    """Paint the head: the chart wrapped around it, shaded."""
    low, high = extent(view.outline())
    # The outline is sampled: between its points it may bulge by a pixel or two.
    (x0, y0), (x1, y1) = np.floor(low).astype(int) - 2, np.ceil(high).astype(int) + 3
    (x0, y0), (x1, y1) = np.maximum((x0, y0), 0), np.minimum((x1, y1), len(canvas))
    columns, lines = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)
    hit, sphere = view.head_at(np.stack(np.meshgrid(columns, lines), axis=-1))
    step = np.float32((len(chart) - 1) / (2 * CHART_REACH))
    at = (sphere_to_chart(sphere) + np.float32(CHART_REACH)) * step
    colour = cv2.remap(chart, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    normal = sphere / view.semi_axes.astype(np.float32)
    length = np.sqrt(np.einsum("...i,...i->...", normal, normal))
    lit = normal @ (view.turn.T @ coat.light).astype(np.float32) / length
    shaded_colour = np.clip(colour * shading(lit, coat)[..., None], 0, 255).astype(np.uint8)
    np.copyto(canvas[y0:y1, x0:x1], shaded_colour, where=hit[..., None])


def shading(lit: Any, coat: Coat) -> Any:
    """Return the brightness factor of surfaces whose normals have the cosine `lit` to the light (a number or an array)."""
    return np.float32(coat.ambient) + np.float32(1.1 - coat.ambient) * np.maximum(lit, 0)


# ---- the parts that stand off the head


def shaded(colour: Colour, direction: Floats, coat: Coat, view: View) -> Colour:
    """Return the colour of a part that points along `direction` (3,), object axes."""
    towards = view.turn @ direction
    factor = float(shading(towards @ coat.light / np.linalg.norm(towards), coat))
    red, green, blue = (min(255.0, channel * factor) for channel in colour)
    return red, green, blue


def fixed(xy: NDArray[Any]) -> NDArray[np.int32]:
    """Return pixels (N, 2) in the fixed-point coordinates (N, 2) of cv2."""
    points: NDArray[np.int32] = np.rint(xy * (1 << SHIFT)).astype(np.int32)
    return points


def ball(canvas: Image, view: View, point: Floats, radius: float, colour: Colour) -> None:
    """Paint a knob of `radius` object units at an object point (3,), with a dark rim."""
    centre = fixed(view.project(point[None])[0]).tolist()
    for share, paint_with in ((1.3, DARK), (1.0, colour)):
        pixels = share * radius * view.pixels_per_unit
        cv2.circle(canvas, centre, round(pixels * (1 << SHIFT)), paint_with, -1, cv2.LINE_AA, SHIFT)


def antenna(canvas: Image, creature: Creature, coat: Coat, view: View, side: int) -> None:
    """Paint an antenna: a tapering ringed stalk with a knob at its tip."""
    line = creature.antenna(side)
    points = fixed(view.project(line)).tolist()
    colour = shaded(coat.horn, line[-1] - line[0], coat, view)
    thick = 0.16 * view.pixels_per_unit
    for outline in (True, False):
        for i, (start, end) in enumerate(pairwise(points)):
            width = thick * (1 - 0.07 * i) * (1.4 if outline else 0.9)
            ring = DARK if outline else (colour if i % 2 else WHITE)
            cv2.line(canvas, start, end, ring, max(1, round(width)), cv2.LINE_AA, SHIFT)
    ball(canvas, view, line[-1], 0.17, coat.gem)
    ball(canvas, view, line[-1], 0.07, WHITE)


def ear(canvas: Image, creature: Creature, coat: Coat, view: View, side: int) -> None:
    """Paint an ear: a triangular flap with a paler inside and a tufted tip."""
    corners = creature.ear(side)
    colour = shaded(coat.skin, np.array([0.5 * SIDES[side], -0.2, 1.0]), coat, view)
    middle = corners.mean(0)
    for grow, paint_with in ((1.12, DARK), (1.0, colour), (0.6, coat.lips)):
        outline = fixed(view.project(middle + grow * (corners - middle)))
        cv2.fillPoly(canvas, [outline], paint_with, cv2.LINE_AA, SHIFT)
    ball(canvas, view, corners[1], 0.13, coat.tuft)


def cone(canvas: Image, view: View, points: Floats, colour: Colour) -> None:
    """Paint the convex hull of object points (N, 3) with a dark outline."""
    hull = cv2.convexHull(view.project(points).astype(np.float32))[:, 0]
    middle = hull.mean(0)
    for grow, paint_with in ((1.15, DARK), (1.0, colour)):
        cv2.fillPoly(canvas, [fixed(middle + grow * (hull - middle))], paint_with, cv2.LINE_AA, SHIFT)


def nose(canvas: Image, creature: Creature, coat: Coat, view: View) -> None:
    """Paint the nose: a cone that ends in a knob."""
    body = shaded(coat.skin, np.array([0.0, -0.3, 1.0]), coat, view)
    cone(canvas, view, creature.nose(), body)
    ball(canvas, view, creature.nose_tip(), NOSE_KNOB, coat.nose)


def chin(canvas: Image, creature: Creature, coat: Coat, view: View) -> None:
    """Paint the beard, which ends in a pale knob."""
    beard = shaded(coat.tuft, np.array([0.0, 0.5, 1.0]), coat, view)
    cone(canvas, view, creature.chin(), beard)
    ball(canvas, view, creature.chin_tip(), 0.09, WHITE)
