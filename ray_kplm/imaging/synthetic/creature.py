"""Geometry of the synthetic category: the shape of a creature, its pose and its landmarks.

Coordinate frames:
    chart   stereographic map of the sphere seen from the front, (X, Y), Y down; conformal: discs stay discs
    sphere  unit sphere, (3,); the head is this sphere stretched by `semi_axes`
    object  head-centred, x to the image right in a frontal view, y down, z towards the viewer
    pixels  image pixels, (x, y), pixel centres at integers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# "left" is the left of the image in a frontal view.
LANDMARK_NAMES: tuple[str, ...] = (
    "antenna_left",
    "antenna_right",
    "ear_left",
    "ear_right",
    "eye_left",
    "eye_right",
    "cheek_left",
    "cheek_right",
    "mouth_left",
    "mouth_right",
    "forehead",
    "nose",
    "lower_lip",
    "chin",
)
SWAP_PAIRS: tuple[tuple[int, int], ...] = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))

# A surface landmark is not visible where the cosine between its normal and the viewing axis is below this.
GRAZING = 0.12
# The other landmarks are tips that stand off the head.
TIPS = ("antenna", "ear", "nose", "chin")
ON_SURFACE = np.array([name.split("_")[0] not in TIPS for name in LANDMARK_NAMES])
NOSE_KNOB = 0.15  # object units, radius
SIDES = (-1.0, 1.0)


@dataclass(frozen=True)
class Creature:
    """One instance of the category. Chart positions are for the right side; the left side mirrors them."""

    semi_axes: Floats  # (3,), object units
    taper: float  # relative change of width per object unit downwards
    forehead_y: float  # chart
    eye: tuple[float, float]  # chart
    eye_radius: float  # chart
    eye_opening: float  # height of the eye over its width
    cheek: tuple[float, float]  # chart
    cheek_radius: float  # chart
    mouth: tuple[float, float]  # chart, the corner
    mouth_open: float  # chart, height of the opening at the middle
    smile: float  # chart, how far the middle of the lips lies below the corners
    nose_y: float  # chart
    nose_radius: float  # chart
    nose_length: float  # object units beyond the surface
    chin_y: float  # chart
    chin_length: float  # object units beyond the surface
    antenna_root: tuple[float, float]  # chart
    antenna_tips: Floats  # (2, 3), from the root, object units; left, right
    antenna_bends: Floats  # (2, 3), sideways push at half length, object units; left, right
    ear_root: Floats  # (3, 3), sphere: upper, middle, lower point of the right ear's base
    ear_tip: Floats  # (3,), from the middle of the base, object units, right side

    def surface(self, x: float, y: float) -> Floats:
        """Return the object point (3,) of the chart position (x, y)."""
        return chart_to_sphere(x, y) * self.semi_axes

    @property
    def lower_lip(self) -> tuple[float, float]:
        """Chart position of the middle of the lower lip."""
        return 0.0, self.mouth[1] + self.smile + self.mouth_open

    def antenna(self, side: int, steps: int = 9) -> Floats:
        """Return the centre line (steps, 3) of one antenna from root to tip; side 0 is left, 1 is right."""
        root = self.surface(SIDES[side] * self.antenna_root[0], self.antenna_root[1])
        along = np.linspace(0.0, 1.0, steps)[:, None]
        line: Floats = root + along * self.antenna_tips[side] + 4 * along * (1 - along) * self.antenna_bends[side]
        return line

    def ear(self, side: int) -> Floats:
        """Return the upper base, tip and lower base (3, 3) of one ear; side 0 is left, 1 is right."""
        upper, middle, lower = self.ear_root * self.semi_axes
        corners: Floats = np.stack([upper, middle + self.ear_tip, lower]) * (SIDES[side], 1.0, 1.0)
        return corners

    def ring(self, y: float, radius: float) -> Floats:
        """Return object points (12, 3) on the head around the chart position (0, y)."""
        around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        return chart_to_sphere(radius * np.cos(around), y + radius * np.sin(around)) * self.semi_axes

    def nose(self) -> Floats:
        """Return object points (13, 3), base ring and tip, whose convex hull is the nose."""
        return np.concatenate([self.ring(self.nose_y, self.nose_radius), self.nose_tip()[None]])

    def chin(self) -> Floats:
        """Return object points (13, 3), base ring and tip, whose convex hull is the beard."""
        return np.concatenate([self.ring(self.chin_y, 0.24), self.chin_tip()[None]])

    def nose_tip(self) -> Floats:
        """Return the object point (3,) of the tip of the nose."""
        return self.surface(0.0, self.nose_y) + self.nose_length * np.array([0.0, 0.25, 1.0])

    def chin_tip(self) -> Floats:
        """Return the object point (3,) of the tip of the beard."""
        return self.surface(0.0, self.chin_y) + self.chin_length * np.array([0.0, 1.0, 0.5])

    def landmarks(self) -> Floats:
        """Return the object points (L, 3) of the landmarks in the order of `LANDMARK_NAMES`."""
        pairs = [self.surface(side * x, y) for x, y in (self.eye, self.cheek, self.mouth) for side in SIDES]
        tips = [self.antenna(0)[-1], self.antenna(1)[-1], self.ear(0)[1], self.ear(1)[1]]
        forehead, lip = self.surface(0.0, self.forehead_y), self.surface(*self.lower_lip)
        return np.stack([*tips, *pairs, forehead, self.nose_tip(), lip, self.chin_tip()])


@dataclass(frozen=True)
class View:
    """The pose of a creature under a scaled orthographic camera."""

    semi_axes: Floats  # (3,)
    turn: Floats  # (3, 3), object to camera axes: yaw, then pitch
    taper: float
    roll: Floats  # (2, 2), includes the scale in pixels per object unit
    centre: Floats  # (2,), pixels

    @property
    def pixels_per_unit(self) -> float:
        """Scale of the view."""
        return float(np.sqrt(np.linalg.det(self.roll)))

    def project(self, points: Floats) -> Floats:
        """Project object points (N, 3) to pixels (N, 2)."""
        camera = points @ self.turn.T
        flat = camera[:, :2] * np.stack([1 + self.taper * camera[:, 1], np.ones(len(camera))], axis=1)
        pixels: Floats = flat @ self.roll.T + self.centre
        return pixels

    def outline(self) -> Floats:
        """Return pixels (24, 2) of the head's outline, where its normal is perpendicular to the viewing axis."""
        around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        basis = np.linalg.svd((self.turn[2] / self.semi_axes)[None])[2][1:]
        sphere = np.cos(around)[:, None] * basis[0] + np.sin(around)[:, None] * basis[1]
        return self.project(sphere * self.semi_axes)

    def head_at(self, xy: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return whether the head is seen at pixels xy (..., 2), bool (...), and at which sphere point (..., 3)."""
        flat = (xy - self.centre.astype(np.float32)) @ np.linalg.inv(self.roll).T.astype(np.float32)
        # The taper is undone by a division; far outside the head its divisor may be zero.
        flat[..., 0] /= np.maximum(1 + np.float32(self.taper) * flat[..., 1], 0.1)
        to_sphere = (self.turn.T / self.semi_axes[:, None]).astype(np.float32)
        sphere = flat @ to_sphere[:, :2].T
        depth = to_sphere[:, 2]
        a, b = depth @ depth, sphere @ depth
        root = b * b - a * (np.einsum("...i,...i->...", sphere, sphere) - 1)
        hit: NDArray[np.bool_] = root > 0
        sphere += ((np.sqrt(np.maximum(root, 0)) - b) / a)[..., None] * depth
        return hit, sphere

    def facing(self, points: Floats) -> Floats:
        """Return the cosine (N,) between the viewing axis and the head's normal below the object points (N, 3)."""
        normal = points / self.semi_axes**2
        cosine: Floats = (normal @ self.turn[2]) / np.linalg.norm(normal, axis=1)
        return cosine

    def behind_head(self, points: Floats) -> NDArray[np.bool_]:
        """Return whether the head is between the object points (N, 3) and the viewer: (N,)."""
        sphere, towards = points / self.semi_axes, self.turn[2] / self.semi_axes
        a, b = towards @ towards, sphere @ towards
        root = b * b - a * ((sphere * sphere).sum(1) - 1)
        hidden: NDArray[np.bool_] = (root > 0) & ((np.sqrt(np.maximum(root, 0)) - b) / a > 0.02)
        return hidden


def visible_landmarks(creature: Creature, view: View) -> NDArray[np.bool_]:
    """Return which landmarks are visible: neither behind the head, nor on a surface turned away, nor covered by the nose."""
    points = creature.landmarks()
    covered = covered_by_nose(creature, view, view.project(points))
    covered[~ON_SURFACE] = False
    visible: NDArray[np.bool_] = ~view.behind_head(points) & ~covered & (~ON_SURFACE | (view.facing(points) > GRAZING))
    return visible


def covered_by_nose(creature: Creature, view: View, xy: Floats) -> NDArray[np.bool_]:
    """Return which pixels (N, 2) are covered by the nose or the knob at its tip: (N,)."""
    hull = cv2.convexHull(view.project(creature.nose()).astype(np.float32))
    inside = [cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in xy]
    tip = view.project(creature.nose_tip()[None])[0]
    covered: NDArray[np.bool_] = np.array(inside) | (
        np.linalg.norm(xy - tip, axis=1) < NOSE_KNOB * view.pixels_per_unit
    )
    return covered


def chart_to_sphere(x: Floats | float, y: Floats | float) -> Floats:
    """Return the sphere points (..., 3) of chart positions (...), by the inverse stereographic projection."""
    square = x * x + y * y
    sphere: Floats = np.stack([4 * x, 4 * y, 4 - square], axis=-1) / np.asarray(4 + square)[..., None]
    return sphere


def sphere_to_chart(sphere: NDArray[Any]) -> NDArray[Any]:
    """Return the chart positions (..., 2) of sphere points (..., 3); the back pole is mapped to a finite place far outside."""
    chart: NDArray[Any] = sphere[..., :2] * (2 / np.maximum(1 + sphere[..., 2:], 1e-3))
    return chart


def draw_creature(rng: np.random.Generator) -> Creature:
    """Draw a random instance: proportions, expression, and the bend of the antennae."""
    u = rng.uniform
    antenna_length, spread, forward, bend = u(0.55, 0.95), u(0.1, 0.6), u(-0.25, 0.35), u(-0.2, 0.2)
    tips = np.array([[side * spread, -1.0, forward] for side in SIDES]) + u(-0.14, 0.14, (2, 3))
    ear_up = u(-0.35, 0.1)
    return Creature(
        semi_axes=np.array([u(0.85, 1.15), u(0.85, 1.15), u(0.8, 1.05)]),
        taper=u(-0.2, 0.12),
        forehead_y=u(-0.82, -0.62),
        eye=(u(0.4, 0.58), u(-0.28, -0.08)),
        eye_radius=u(0.24, 0.32),
        eye_opening=u(0.7, 1.1),
        cheek=(u(0.82, 1.02), u(0.3, 0.5)),
        cheek_radius=u(0.17, 0.23),
        mouth=(u(0.3, 0.5), u(0.58, 0.7)),
        mouth_open=u(0.05, 0.32),
        smile=u(-0.06, 0.12),
        nose_y=u(0.14, 0.28),
        nose_radius=u(0.16, 0.24),
        nose_length=u(0.18, 0.42),
        chin_y=u(1.25, 1.45),
        chin_length=u(0.15, 0.38),
        antenna_root=(u(0.3, 0.6), u(-1.5, -1.25)),
        antenna_tips=antenna_length * tips,
        antenna_bends=np.array([[side * bend, 0.0, 0.0] for side in SIDES]) + u(-0.06, 0.06, (2, 3)),
        ear_root=np.stack([on_side(ear_up - 0.25), on_side(ear_up), on_side(ear_up + 0.25)]),
        ear_tip=np.array([u(0.35, 0.65), u(-0.45, 0.1), u(-0.15, 0.15)]),
    )


def on_side(y: float) -> Floats:
    """Return the sphere point (3,) at height y of the right ear's base, a little behind the outline of a frontal view."""
    return np.array([0.97 * np.sqrt(1 - y * y), y, -0.24 * np.sqrt(1 - y * y)])


def draw_view(rng: np.random.Generator, creature: Creature, size: int) -> View:
    """Draw a random pose in a square image of `size` pixels: the object takes 60 to 75 % of the side and is wholly inside."""
    yaw, pitch, roll = np.deg2rad(rng.uniform([-50, -18, -25], [50, 18, 25]))
    rotate = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    turn = rotation_x(pitch) @ rotation_y(yaw)
    upright = View(creature.semi_axes, turn, creature.taper, rotate, np.zeros(2))
    low, high = extent(np.concatenate([upright.outline(), upright.project(creature.landmarks())]))
    scale = rng.uniform(0.60, 0.75) * (size - 1) / (high - low).max()
    slack = (size - 1 - scale * (high - low)) / 2
    middle = (size - 1) / 2 + rng.uniform(-0.6, 0.6, 2) * slack
    return View(creature.semi_axes, turn, creature.taper, scale * rotate, middle - scale * (low + high) / 2)


def extent(xy: Floats) -> tuple[Floats, Floats]:
    """Return the lower and the upper corner, (2,) each, of points (N, 2)."""
    return xy.min(0), xy.max(0)


def rotation_x(angle: float) -> Floats:
    """Return the rotation (3, 3) around the x axis by an angle, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def rotation_y(angle: float) -> Floats:
    """Return the rotation (3, 3) around the y axis by an angle, radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
