"""Geometry of the synthetic side-view category: the build of a four-legged animal, its posture and its landmarks.

The body is a set of bones, each a tapering capsule: spheres along a segment, whose radius changes linearly.

Coordinate frames:
    object  trunk-centred, x towards the head, y down, z towards the viewer's side; the trunk is about one unit long
    pixels  image pixels, (x, y), pixel centres at integers

Angles of neck, head and tail are elevations above the horizontal; angles of legs are measured from straight down, positive
forwards. "near" is the side that the viewer sees, whichever way the animal faces, so the mirror image swaps no landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LANDMARK_NAMES: tuple[str, ...] = (
    "muzzle",
    "eye",
    "ear",
    "withers",
    "chest",
    "hip",
    "tail_base",
    "tail_tip",
    "elbow",
    "near_fore_knee",
    "near_fore_foot",
    "far_fore_knee",
    "far_fore_foot",
    "stifle",
    "near_hock",
    "near_hind_foot",
    "far_hock",
    "far_hind_foot",
)

# Surfaces in the order of the palette of `animal_paint`. "coat" and "leg" have the texture of the coat.
PARTS: tuple[str, ...] = ("coat", "leg", "sock", "hoof", "muzzle", "ear", "horn", "mane", "tuft", "eyeball", "pupil")
NEAR, FAR = 1.0, -1.0
LEGS: tuple[tuple[str, float], ...] = (("fore", FAR), ("hind", FAR), ("fore", NEAR), ("hind", NEAR))


@dataclass(frozen=True)
class Bone:
    """A tapering capsule of the body, object units.

    Attributes:
        start: (3,), centre of the first sphere.
        end: (3,), centre of the last sphere.
        radii: Radius of the first and of the last sphere.
        part: A name of `PARTS`.
        far: Whether it belongs to a leg on the far side, which lies in the shade of the body.
    """

    start: Floats
    end: Floats
    radii: tuple[float, float]
    part: str = "coat"
    far: bool = False


@dataclass(frozen=True)
class Build:
    """The proportions of one animal, object units."""

    chest: float  # radius of the trunk at the shoulders
    belly: float  # radius at the middle
    rump: float  # radius at the hips
    sag: float  # how far the middle of the trunk lies below the line from shoulders to hips
    withers: float  # height of the shoulders above the hips
    leg_length: float  # of the fore legs, about; hind legs start higher and are longer by `HIND_EXTRA`
    leg_radius: float
    stance: float  # distance of the legs from the middle plane
    sock: float  # share of the lower leg that has the colour of socks
    neck_length: float
    neck_radius: float
    head_length: float
    head_radius: float
    ear_length: float
    horn_length: float  # 0: no horns
    mane: float  # radius; 0: no mane
    tail_length: float
    tail_radius: float
    tuft: float  # radius of the hair at the tip of the tail


@dataclass(frozen=True)
class Posture:
    """The joint angles of one animal, radians."""

    neck: float
    head: float
    head_yaw: float  # positive: towards the viewer
    ear: float  # from the direction of the skull's top, positive: backwards
    tail: tuple[float, float, float]  # elevation of its three thirds; pi is straight backwards
    legs: tuple[tuple[float, float], ...]  # swing and flexion of each leg, in the order of `LEGS`
    pitch: float  # of the whole body, positive: head up
    airborne: float  # height of the feet above the ground, object units


@dataclass(frozen=True)
class Body:
    """An animal in a posture.

    Attributes:
        bones: In any order: the renderer decides what hides what.
        landmarks: (L, 3), in the order of `LANDMARK_NAMES`.
        depths: (L,), how far behind the visible surface a landmark may lie, since most are centres of joints.
        feet: (4, 3), soles, in the order of `LEGS`.
    """

    bones: tuple[Bone, ...]
    landmarks: Floats
    depths: Floats
    feet: Floats


# A hind leg starts at the hip, a fore leg at the elbow, which is lower.
HIND_EXTRA = 0.16
EYE = 0.042  # radius, object units


def articulate(build: Build, posture: Posture) -> Body:
    """Return the body of an animal in a posture: bones and landmarks."""
    shoulder = np.array([0.42, -build.withers, 0.0])
    hip = np.array([-0.42, 0.0, 0.0])
    middle = np.array([0.0, build.sag, 0.0])
    top_of_shoulder = shoulder + np.array([-0.06, -0.45 * build.chest, 0.0])
    bones = [
        Bone(shoulder, middle, (build.chest, build.belly)),
        Bone(middle, hip, (build.belly, build.rump)),
        Bone(shoulder, top_of_shoulder, (build.chest, 0.6 * build.chest)),
    ]
    points: dict[str, tuple[Floats, float]] = {
        "withers": (top_of_shoulder + np.array([0.0, -0.6 * build.chest, 0.0]), 0.5 * build.chest),
        "chest": (shoulder + build.chest * np.array([0.85, 0.5, 0.0]), 0.5 * build.chest),
        "hip": (hip + build.rump * np.array([0.1, -0.95, 0.1]), 0.6 * build.rump),
    }
    bones += neck_and_head(build, posture, shoulder, points)
    bones += tail(build, posture, hip, points)
    feet = []
    for (kind, side), (swing, flexion) in zip(LEGS, posture.legs, strict=True):
        limb = fore_leg if kind == "fore" else hind_leg
        leg, foot = limb(build, shoulder if kind == "fore" else hip, side, (swing, flexion), points)
        bones += leg
        feet.append(foot)
    landmarks = np.stack([points[name][0] for name in LANDMARK_NAMES])
    return Body(tuple(bones), landmarks, np.array([points[name][1] for name in LANDMARK_NAMES]), np.stack(feet))


def neck_and_head(
    build: Build, posture: Posture, shoulder: Floats, points: dict[str, tuple[Floats, float]]
) -> list[Bone]:
    """Return the bones of neck, head, ears and horns, and add the landmarks muzzle, eye and ear to `points`."""
    root = shoulder + build.chest * np.array([0.35, -0.35, 0.0])
    # The first third of the neck points half-way between the trunk's direction and the neck's.
    bend = root + 0.35 * build.neck_length * elevated(0.5 * posture.neck + 0.15)
    poll = bend + 0.65 * build.neck_length * elevated(posture.neck, 0.4 * posture.head_yaw)
    radius = build.head_radius
    ahead = elevated(posture.head, posture.head_yaw)
    side = np.array([-np.sin(posture.head_yaw), 0.0, np.cos(posture.head_yaw)])
    up = np.cross(ahead, side)
    skull = poll + 0.3 * build.head_length * ahead
    nose = poll + (build.head_length - 0.55 * radius) * ahead - 0.25 * radius * up
    jaw = poll + 0.12 * build.head_length * ahead - 0.45 * radius * up
    bones = [
        Bone(root, bend, (1.45 * build.neck_radius, 1.1 * build.neck_radius)),
        Bone(bend, poll, (1.1 * build.neck_radius, 0.85 * build.neck_radius)),
        Bone(poll, skull, (0.85 * radius, radius)),
        Bone(skull, nose, (0.9 * radius, 0.55 * radius)),
        Bone(jaw, nose, (0.7 * radius, 0.5 * radius)),
        Bone(nose - 0.1 * build.head_length * ahead, nose, (0.59 * radius, 0.57 * radius), "muzzle"),
    ]
    eye = skull + 0.1 * build.head_length * ahead + 0.3 * radius * up + 0.82 * radius * side
    bones += [
        Bone(eye, eye, (EYE, EYE), "eyeball"),
        Bone(eye + 0.5 * EYE * side, eye + 0.5 * EYE * side, (0.72 * EYE, 0.72 * EYE), "pupil"),
    ]
    points["eye"] = eye, 2 * EYE
    points["muzzle"] = nose + 0.5 * radius * ahead, 0.5 * radius
    backwards = np.cos(posture.ear) * up - np.sin(posture.ear) * ahead
    for facing in (FAR, NEAR):
        base = poll + 0.55 * radius * up + 0.6 * facing * radius * side
        tip = base + build.ear_length * (backwards + 0.35 * facing * side)
        bones.append(Bone(base, base + 0.55 * (tip - base), (0.3 * radius, 0.4 * radius), "ear", facing == FAR))
        bones.append(Bone(base + 0.55 * (tip - base), tip, (0.4 * radius, 0.1 * radius), "ear", facing == FAR))
        if build.horn_length:
            root_of_horn = skull - 0.1 * build.head_length * ahead + 0.7 * radius * up + 0.35 * facing * radius * side
            bent = root_of_horn + 0.6 * build.horn_length * (0.9 * up + 0.3 * facing * side)
            point = bent + 0.5 * build.horn_length * (0.6 * up + 0.7 * ahead)
            bones.append(Bone(root_of_horn, bent, (0.24 * radius, 0.2 * radius), "horn"))
            bones.append(Bone(bent, point, (0.2 * radius, 0.08 * radius), "horn"))
        if facing == NEAR:
            points["ear"] = tip, 0.3 * radius
    if build.mane:
        crest = np.array([0.0, -1.0, 0.0]) - 0.3 * (poll - bend) / build.neck_length
        high, low = poll + 0.7 * build.neck_radius * crest, bend + 0.9 * build.neck_radius * crest
        bones.append(Bone(low, high, (build.mane, 0.8 * build.mane), "mane"))
    return bones


def tail(build: Build, posture: Posture, hip: Floats, points: dict[str, tuple[Floats, float]]) -> list[Bone]:
    """Return the bones of the tail and add the landmarks tail_base and tail_tip to `points`."""
    joint = hip + build.rump * np.array([-0.9, -0.4, 0.0])
    points["tail_base"] = joint, 0.6 * build.rump
    bones = []
    radii = build.tail_radius * np.array([1.0, 0.9, 0.75, 0.5])
    for i, elevation in enumerate(posture.tail):
        end = joint + build.tail_length / 3 * elevated(elevation)
        bones.append(Bone(joint, end, (radii[i], radii[i + 1])))
        joint = end
    if build.tuft:
        tip = joint + 0.1 * elevated(posture.tail[-1])
        bones.append(Bone(joint, tip, (build.tuft, 0.5 * build.tuft), "tuft"))
        joint = tip
    points["tail_tip"] = joint, max(build.tuft, build.tail_radius) + 0.02
    return bones


def fore_leg(
    build: Build, shoulder: Floats, side: float, angles: tuple[float, float], points: dict[str, tuple[Floats, float]]
) -> tuple[list[Bone], Floats]:
    """Return the bones of a fore leg and its sole (3,), and add its landmarks to `points`.

    Args:
        build: The proportions.
        shoulder: (3,), object units.
        side: NEAR or FAR.
        angles: Swing of the whole leg and flexion of the knee, which lifts the foot backwards; radians.
        points: Landmark -> object point (3,) and allowed depth.
    """
    swing, flexion = angles
    thick = build.leg_radius
    elbow = shoulder + np.array([-0.06, 0.62 * build.chest, side * build.stance])
    drop = build.leg_length + build.withers - 0.12 * build.chest
    knee = elbow + 0.48 * drop * below(swing)
    fetlock = knee + 0.45 * drop * below(swing - flexion)
    toe = fetlock + 0.07 * drop * below(swing - flexion + 0.5)
    far = side == FAR
    upper_root = shoulder + np.array([0.02, 0.1, side * 0.8 * build.stance])
    bones = [Bone(upper_root, elbow, (2.4 * thick, 1.9 * thick), "coat", far)]
    bones += shank(build, (elbow, knee, fetlock, toe), (1.7 * thick, thick, 0.8 * thick), far)
    name = "far" if far else "near"
    points[f"{name}_fore_knee"] = knee, 1.6 * thick
    points[f"{name}_fore_foot"] = toe, 1.8 * thick
    if not far:
        points["elbow"] = elbow, 3 * thick
    return bones, toe + np.array([0.0, thick, 0.0])


def hind_leg(
    build: Build, hip: Floats, side: float, angles: tuple[float, float], points: dict[str, tuple[Floats, float]]
) -> tuple[list[Bone], Floats]:
    """Return the bones of a hind leg and its sole (3,), and add its landmarks to `points`; see `fore_leg`."""
    swing, flexion = angles
    thick = build.leg_radius
    root = hip + np.array([0.0, 0.02, side * 0.7 * build.stance])
    drop = build.leg_length + HIND_EXTRA
    stifle = root + 0.36 * drop * below(0.45 + 0.6 * swing + 0.5 * flexion)
    stifle[2] += side * 0.3 * build.stance
    hock = stifle + 0.38 * drop * below(-0.62 + swing - 0.5 * flexion)
    fetlock = hock + 0.34 * drop * below(0.12 + swing + 0.3 * flexion)
    toe = fetlock + 0.07 * drop * below(0.6 + swing + 0.3 * flexion)
    far = side == FAR
    bones = [Bone(root, stifle, (0.75 * build.rump, 2.1 * thick), "coat", far)]
    bones += shank(build, (stifle, hock, fetlock, toe), (2.0 * thick, 1.05 * thick, 0.8 * thick), far)
    name = "far" if far else "near"
    points[f"{name}_hock"] = hock, 1.6 * thick
    points[f"{name}_hind_foot"] = toe, 1.8 * thick
    if not far:
        points["stifle"] = stifle, 3 * thick
    return bones, toe + np.array([0.0, thick, 0.0])


def shank(
    build: Build, joints: tuple[Floats, Floats, Floats, Floats], radii: tuple[float, float, float], far: bool
) -> list[Bone]:
    """Return the bones of a lower leg from its four joints (3,), with a sock above the hoof."""
    first, second, third, toe = joints
    start = second + (1 - build.sock) * (third - second)
    return [
        Bone(first, second, radii[:2], "leg", far),
        Bone(second, third, radii[1:], "leg", far),
        Bone(start, third, (1.03 * radii[2], 1.03 * radii[2]), "sock", far),
        Bone(third, toe, (radii[2], 1.15 * radii[2]), "hoof", far),
    ]


def elevated(elevation: float, yaw: float = 0.0) -> Floats:
    """Return the unit vector (3,) at an elevation above the horizontal and a yaw towards the viewer, radians."""
    flat = np.cos(elevation)
    return np.array([flat * np.cos(yaw), -np.sin(elevation), flat * np.sin(yaw)])


def below(angle: float) -> Floats:
    """Return the unit vector (3,) at an angle from straight down, positive forwards, radians."""
    return np.array([np.sin(angle), np.cos(angle), 0.0])
