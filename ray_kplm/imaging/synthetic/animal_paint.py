"""Painting of a side-view animal: spheres along its bones in a depth buffer, coloured by part, coat and light."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.synthetic.animal import PARTS, Body, Bone, Floats
from ray_kplm.imaging.synthetic.posture import SideView
from ray_kplm.imaging.synthetic.scene import Colour, Image, hsv, smooth_noise

# Spheres along a bone follow each other at this share of its smaller radius, and there are no more than so many.
SPACING = 0.3
MOST_SPHERES = 48
TEXTURE = 128  # side of the coat's texture, which repeats
PIXELS_PER_UNIT = 40  # of the texture
FAR_SHADE = 0.78  # brightness of the legs in the shade of the body

EYEBALL: Colour = (225.0, 220.0, 205.0)
PUPIL: Colour = (16.0, 12.0, 14.0)


@dataclass(frozen=True)
class Pelt:
    """Colours and texture of one animal, and the light on it.

    Attributes:
        palette: (P, 3), RGB of each of `PARTS`; coat and leg: the base colour.
        second: (3,), RGB of the patches.
        patches: (TEXTURE, TEXTURE), 0 to 1, share of the second colour.
        fur: (TEXTURE, TEXTURE), factor of the brightness.
        belly: How much lighter the underside is.
        light: (3,), unit norm, image axes: towards the light, whichever way the animal faces.
        ambient: Brightness of surfaces turned away from the light.
    """

    palette: NDArray[np.float32]
    second: NDArray[np.float32]
    patches: NDArray[np.float32] = field(repr=False)
    fur: NDArray[np.float32] = field(repr=False)
    belly: float
    light: Floats = field(repr=False)
    ambient: float


def draw_pelt(rng: np.random.Generator) -> Pelt:
    """Draw a pelt: a natural colour, patches, spots or stripes of another or none, and fur."""
    base, second = natural_colour(rng), natural_colour(rng)
    dark = tuple(0.3 * channel for channel in base)
    pale = tuple(0.5 * channel + 110 for channel in base)
    face = [base, dark, pale, second][rng.integers(4)]
    palette = {
        "coat": base,
        "leg": [base, dark, second][rng.choice(3, p=(0.6, 0.25, 0.15))],
        "sock": [pale, dark, (235.0, 232.0, 225.0)][rng.integers(3)],
        "hoof": hsv(0.08, 0.3, rng.uniform(0.12, 0.4)),
        "muzzle": [dark, pale, (205.0, 150.0, 145.0)][rng.integers(3)],
        "ear": face,
        "horn": hsv(0.11, rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.95)),
        "mane": [dark, pale, second][rng.integers(3)],
        "tuft": [dark, pale, second][rng.integers(3)],
        "eyeball": EYEBALL,
        "pupil": PUPIL,
    }
    light = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-1.4, -0.1), 1.0])
    return Pelt(
        palette=np.array([palette[part] for part in PARTS], np.float32),
        second=np.array(second, np.float32),
        patches=draw_patches(rng),
        fur=np.float32(1) + np.float32(rng.uniform(0.02, 0.16)) * smooth_noise(rng, TEXTURE, 40),
        belly=max(0.0, rng.uniform(-0.3, 0.4)),
        light=light / np.linalg.norm(light),
        ambient=rng.uniform(0.45, 0.65),
    )


def natural_colour(rng: np.random.Generator) -> Colour:
    """Draw the colour of a coat: white, grey, black, brown, rust or cream, and sometimes any hue."""
    value = rng.uniform(0.15, 0.95)
    match rng.integers(4):
        case 0:
            return hsv(rng.uniform(), rng.uniform(0.0, 0.1), value)
        case 1:
            return hsv(rng.uniform(0.02, 0.08), rng.uniform(0.4, 0.8), 0.8 * value)
        case 2:
            return hsv(rng.uniform(0.07, 0.14), rng.uniform(0.15, 0.55), value)
        case _:
            return hsv(rng.uniform(), rng.uniform(0.1, 0.5), value)


def draw_patches(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the share (TEXTURE, TEXTURE) of the second colour in the coat: none, patches, spots or stripes."""
    match rng.choice(4, p=(0.6, 0.24, 0.08, 0.08)):
        case 0:
            return np.zeros((TEXTURE, TEXTURE), np.float32)
        case 1:
            noise, threshold = smooth_noise(rng, TEXTURE, int(rng.integers(7, 14))), rng.uniform(-0.1, 0.4)
        case 2:
            noise, threshold = smooth_noise(rng, TEXTURE, int(rng.integers(20, 34))), rng.uniform(0.25, 0.5)
        case _:
            across = np.linspace(0, 2 * np.pi * rng.integers(8, 20), TEXTURE, dtype=np.float32)
            noise = np.sin(across + 2.5 * smooth_noise(rng, TEXTURE, 9))
            threshold = rng.uniform(0.0, 0.6)
    share: NDArray[np.float32] = np.clip(4 * (noise - np.float32(threshold)) + 0.5, 0, 1).astype(np.float32)
    return share


@dataclass(frozen=True)
class Surface:
    """What the viewer sees at each pixel of a canvas.

    Attributes:
        depth: (S, S), pixels towards the viewer; -inf where there is no animal.
        normal: (S, S, 3), unit norm, image axes: x to the right, y down, z towards the viewer.
        part: (S, S), index into `PARTS`.
        far: (S, S), whether the pixel belongs to the far side.
    """

    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    part: NDArray[np.uint8]
    far: NDArray[np.bool_]


def surface_of(body: Body, view: SideView, side: int) -> Surface:
    """Return the visible surface of a body in a canvas of `side` pixels."""
    surface = Surface(
        np.full((side, side), -np.inf, np.float32),
        np.zeros((side, side, 3), np.float32),
        np.zeros((side, side), np.uint8),
        np.zeros((side, side), np.bool_),
    )
    for bone in body.bones:
        add_bone(surface, bone, view)
    return surface


def add_bone(surface: Surface, bone: Bone, view: SideView) -> None:
    """Draw the spheres along a bone where they are nearer than what the surface has."""
    ends = np.stack([bone.start, bone.end])
    xyz = np.concatenate([view.project(ends), view.depth(ends)[:, None]], axis=1)
    radii = view.pixels_per_unit * np.array(bone.radii)
    length = float(np.linalg.norm(xyz[1] - xyz[0]))
    spheres = min(MOST_SPHERES, 1 + int(np.ceil(length / max(SPACING * radii.min(), 0.5))))
    along = np.linspace(0, 1, spheres)[:, None]
    centre = (xyz[0] + along * (xyz[1] - xyz[0])).astype(np.float32)
    radius = (radii[0] + along[:, 0] * (radii[1] - radii[0])).astype(np.float32)
    low = np.maximum(np.floor((xyz[:, :2] - radii[:, None]).min(0)).astype(int), 0)
    high = np.minimum(np.ceil((xyz[:, :2] + radii[:, None]).max(0)).astype(int) + 1, len(surface.depth))
    if (low >= high).any():
        return
    columns, lines = np.arange(low[0], high[0], dtype=np.float32), np.arange(low[1], high[1], dtype=np.float32)
    dx = columns - centre[:, 0, None]
    dy = lines - centre[:, 1, None]
    square = (radius**2)[:, None, None] - dx[:, None] ** 2 - dy[:, :, None] ** 2
    depth = np.where(square > 0, centre[:, 2, None, None] + np.sqrt(np.maximum(square, 0)), -np.inf)
    nearest = depth.argmax(0)
    depth = np.take_along_axis(depth, nearest[None], 0)[0]
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    seen = depth > surface.depth[window]
    at = centre[nearest]
    normal = np.stack(
        np.broadcast_arrays(columns - at[..., 0], lines[:, None] - at[..., 1], depth - at[..., 2]), axis=-1
    )
    surface.depth[window][seen] = depth[seen]
    surface.normal[window][seen] = normal[seen] / radius[nearest][seen][:, None]
    surface.part[window][seen] = PARTS.index(bone.part)
    surface.far[window][seen] = bone.far


def paint_animal(canvas: Image, surface: Surface, pelt: Pelt, view: SideView) -> None:
    """Paint a surface over a canvas (S, S, 3), in place."""
    lines, columns = np.nonzero(np.isfinite(surface.depth))
    part, normal = surface.part[lines, columns], surface.normal[lines, columns]
    # The texture lies in the plane of the animal, so that it turns, scales and is mirrored with it.
    flat = (np.stack([columns, lines], axis=1) - view.centre) @ np.linalg.inv(view.plane).T
    flat = (flat + 0.8 * surface.far[lines, columns, None]) * PIXELS_PER_UNIT
    at = (flat + TEXTURE / 2).astype(np.float32)[None]
    share, fur = (
        cv2.remap(texture, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)[0]
        for texture in (pelt.patches, pelt.fur)
    )
    colour = pelt.palette[part]
    share = np.where(part == PARTS.index("coat"), share, 0)[:, None]
    colour = (colour + share * (pelt.second - colour)) * fur[:, None]
    colour = colour + np.float32(pelt.belly) * np.maximum(normal[:, 1:2], 0) * (230 - colour)
    lit = np.float32(pelt.ambient) + np.float32(1.1 - pelt.ambient) * np.maximum(
        normal @ pelt.light.astype(np.float32), 0
    )
    lit = lit * np.where(surface.far[lines, columns], np.float32(FAR_SHADE), np.float32(1))
    canvas[lines, columns] = np.clip(colour * lit[:, None], 0, 255).astype(np.uint8)


def visible_points(body: Body, surface: Surface, view: SideView) -> NDArray[np.bool_]:
    """Return which landmarks of a body are visible: (L,).

    A landmark is hidden if the surface at its pixel is nearer to the viewer than its own part's surface can be.
    """
    xy = np.clip(np.rint(view.project(body.landmarks)).astype(int), 0, len(surface.depth) - 1)
    before = surface.depth[xy[:, 1], xy[:, 0]] - view.depth(body.landmarks)
    visible: NDArray[np.bool_] = before <= view.pixels_per_unit * (body.depths + 0.02)
    return visible
