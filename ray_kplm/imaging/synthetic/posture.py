"""Random draws of the side-view category: proportions of an animal, its posture, and the view of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_kplm.imaging.synthetic.animal import LEGS, Body, Build, Floats, Posture
from ray_kplm.imaging.synthetic.creature import rotation_x, rotation_y

GRAZING = 0.2  # share of the animals
TAIL_RAISED = 0.25
# Phase of each leg in the walk, in the order of `animal.LEGS`: diagonal legs swing together.
WALK = np.array([np.pi, 0.15 * np.pi, 0.0, 1.15 * np.pi])


@dataclass(frozen=True)
class SideView:
    """The pose of an animal under a scaled orthographic camera.

    Attributes:
        facing: 1: the head is at the image right, -1: at the image left.
        turn: (3, 3), object to camera axes: yaw, then elevation of the camera.
        plane: (2, 2), camera to pixels: pitch of the body, scale and the mirror of `facing`.
        centre: (2,), pixels.
    """

    facing: float
    turn: Floats
    plane: Floats
    centre: Floats

    @property
    def pixels_per_unit(self) -> float:
        """Scale of the view."""
        return float(np.sqrt(abs(np.linalg.det(self.plane))))

    def project(self, points: Floats) -> Floats:
        """Project object points (N, 3) to pixels (N, 2)."""
        pixels: Floats = (points @ self.turn.T)[:, :2] @ self.plane.T + self.centre
        return pixels

    def depth(self, points: Floats) -> Floats:
        """Return how near object points (N, 3) are to the viewer: (N,), pixels, larger is nearer."""
        depth: Floats = self.pixels_per_unit * (points @ self.turn[2])
        return depth

    def enlarged(self, factor: int) -> SideView:
        """Return the view into a finer canvas: image pixel i covers canvas pixels factor * i to factor * (i + 1) - 1."""
        return SideView(self.facing, self.turn, factor * self.plane, factor * self.centre + (factor - 1) / 2)


def draw_build(rng: np.random.Generator) -> Build:
    """Draw the proportions of an animal, between those of a sheep, a cow, a horse and a dog."""
    u = rng.uniform
    head = u(0.4, 0.52)
    horned, maned, tufted = rng.uniform(size=3) < (0.3, 0.35, 0.5)
    bushy = rng.uniform() < 0.3
    return Build(
        chest=u(0.24, 0.3),
        belly=u(0.2, 0.27),
        rump=u(0.18, 0.23),
        sag=u(-0.03, 0.05),
        withers=u(-0.04, 0.1),
        leg_length=u(0.42, 0.62),
        leg_radius=u(0.04, 0.06),
        stance=u(0.09, 0.14),
        sock=u(0.0, 0.9),
        neck_length=u(0.28, 0.46),
        neck_radius=u(0.08, 0.13),
        head_length=head,
        head_radius=head * u(0.26, 0.34),
        ear_length=u(0.14, 0.26),
        horn_length=u(0.12, 0.26) if horned else 0.0,
        mane=u(0.035, 0.06) if maned else 0.0,
        tail_length=u(0.3, 0.6),
        tail_radius=u(0.05, 0.09) if bushy else u(0.02, 0.04),
        tuft=u(0.05, 0.075) if tufted else 0.0,
    )


def draw_posture(rng: np.random.Generator) -> Posture:
    """Draw a posture: standing, walking or leaping, with the neck anywhere from the ground to upright."""
    u = rng.uniform
    # Most animals look up; others graze.
    neck = np.deg2rad(u(-50, 10) if u() < GRAZING else u(10, 70))
    # The muzzle stays roughly ahead of the neck: a lowered neck points the head down, a raised one leaves it level.
    head = np.deg2rad(u(-50, 5)) + (0.55 * neck if neck < 0 else 0.1 * neck)
    # The tail hangs or is raised: 90 is upright, 180 straight backwards, 270 straight down.
    first = np.deg2rad(u(115, 200) if u() < TAIL_RAISED else u(200, 275))
    curl = np.deg2rad(u(-35, 35))
    tail = (first, first + curl, first + 2 * curl)
    gait = rng.choice(3, p=(0.35, 0.43, 0.22))
    noise = np.deg2rad(u(-6, 6, len(LEGS)))
    airborne = 0.0
    match gait:
        case 0:
            swings, flexions = np.deg2rad(u(-9, 9, len(LEGS))), np.deg2rad(u(0, 6, len(LEGS)))
            pitch = u(-5, 5)
        case 1:
            phase = WALK + u(0, 2 * np.pi) + u(-0.4, 0.4, len(LEGS))
            swings = np.deg2rad(u(14, 32)) * np.sin(phase) + noise
            # A leg is lifted while it swings forwards.
            flexions = np.deg2rad(u(15, 75)) * np.maximum(np.cos(phase), 0)
            pitch = u(-6, 6)
        case _:
            swings, flexions = leap(rng, noise)
            pitch, airborne = u(-20, 20), u(0.08, 0.35)
    return Posture(
        neck=neck,
        head=head,
        head_yaw=np.deg2rad(u(-25, 35)),
        ear=np.deg2rad(u(5, 95)),
        tail=tail,
        legs=tuple(zip(swings.tolist(), flexions.tolist(), strict=True)),
        pitch=np.deg2rad(pitch),
        airborne=airborne,
    )


def leap(rng: np.random.Generator, noise: Floats) -> tuple[Floats, Floats]:
    """Draw the swings and flexions (4,) of a leap, from stretched out to gathered below the body; radians."""
    gathered = rng.uniform()
    stretched_swing = {"fore": rng.uniform(35, 65), "hind": rng.uniform(-60, -35)}
    gathered_swing = {"fore": rng.uniform(10, 45), "hind": rng.uniform(0, 30)}
    stretched_flexion = {"fore": rng.uniform(0, 60), "hind": 0.0}
    gathered_flexion = {"fore": rng.uniform(60, 115), "hind": rng.uniform(20, 50)}

    def blend(stretched: dict[str, float], together: dict[str, float]) -> Floats:
        values = [(1 - gathered) * stretched[kind] + gathered * together[kind] for kind, _ in LEGS]
        return np.deg2rad(values) + 2 * noise

    return blend(stretched_swing, gathered_swing), np.maximum(blend(stretched_flexion, gathered_flexion), 0)


def draw_side_view(rng: np.random.Generator, body: Body, pitch: float, size: int) -> SideView:
    """Draw the view of a body in a square image of `size` pixels.

    Half of the animals face left. The longer side of the animal takes 66 to 88 % of the image, and all of it is inside.

    Args:
        rng: Draws facing, foreshortening, scale and position.
        body: The animal.
        pitch: Of the body, radians, positive: head up.
        size: Side of the image.
    """
    facing = 1.0 if rng.uniform() < 0.5 else -1.0
    yaw, elevation = np.deg2rad(rng.uniform([-24, 0], [24, 14]))
    # A camera that looks down sees the far side higher in the image: y down, z towards the viewer.
    turn = rotation_x(elevation) @ rotation_y(yaw)
    rotate = np.array([[np.cos(pitch), np.sin(pitch)], [-np.sin(pitch), np.cos(pitch)]])
    plane = np.diag([facing, 1.0]) @ rotate
    unscaled = SideView(facing, turn, plane, np.zeros(2))
    ends = np.stack([point for bone in body.bones for point in (bone.start, bone.end)])
    radii = np.array([radius for bone in body.bones for radius in bone.radii])[:, None]
    flat = unscaled.project(ends)
    low, high = (flat - radii).min(0), (flat + radii).max(0)
    scale = rng.uniform(0.66, 0.88) * (size - 1) / (high - low).max()
    slack = (size - 1 - scale * (high - low)) / 2
    middle = (size - 1) / 2 + rng.uniform(-0.7, 0.7, 2) * slack
    return SideView(facing, turn, scale * plane, middle - scale * (low + high) / 2)
