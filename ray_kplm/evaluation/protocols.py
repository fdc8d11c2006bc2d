"""Evaluation protocols of the field's datasets by name: scored points, normaliser and split (thesis section 2.7).

A protocol refers to landmarks by name and finds them among a dataset's `landmark_names` in any order; case, spaces and
hyphens do not matter. The readers in `datasets/` give these names:

    mafl         left_eye right_eye nose left_mouth right_mouth
    aflw         21 names, among them left_eye_center right_eye_center nose_center mouth_left_corner mouth_right_corner
    ls3d         0 ... 67, the iBUG scheme
    catheads     left_eye right_eye mouth left_ear_1 left_ear_2 left_ear_3 right_ear_1 right_ear_2 right_ear_3
    bbcpose      head right_wrist left_wrist right_elbow left_elbow right_shoulder left_shoulder
    human36m, pennaction
                 head, and left_ and right_ shoulder elbow wrist hip knee ankle
    deepfashion  left_ and right_ collar sleeve waistline hem
    cub          back beak belly breast crown forehead left_eye left_leg left_wing nape right_eye right_leg right_wing
                 tail throat
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_kplm.errors import ConfigError, DataError
from ray_kplm.evaluation.annotation import Scoring
from ray_kplm.evaluation.oks import SIGMAS, require

Points = tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """The evaluation protocol of one dataset, in names of its landmarks."""

    name: str
    points: Points
    """The points that are scored."""
    normaliser: Mapping[str, Any]
    """Definition of the normaliser as in `normalisers.normaliser`, with names in place of indices."""
    split: str
    """The rule by which the thesis splits the dataset."""
    images: tuple[int | None, int | None] = (None, None)
    """Numbers of training and test images in the thesis; None if it does not state them."""
    metrics: tuple[str, ...] = ("nme",)
    """The metrics, out of nme, regressed_accuracy, raw_accuracy, pck and oks."""
    within: tuple[int, int] = (6, 128)
    """Largest distance at which accuracy counts a point as found, and the side of the image at which it holds, both pixels."""
    pck_share: float = 0.3
    """Distance of PCK, as a share of the torso's length."""
    groups: Mapping[str, Points] = field(default_factory=dict)
    """Points whose accuracy is reported together. PCK and OKS are over the points of all groups."""
    torso: tuple[Points, ...] = ()
    """Pairs of points whose mean distance is the torso's length."""
    visible_only: bool = False
    """Whether to leave out points that are annotated as hidden."""
    by: tuple[str, ...] = ()
    """Buckets of the test images, in the syntax of `buckets.bucketed`."""


def find(name: str) -> Protocol:
    """Return the protocol of a name.

    Raises:
        ConfigError: There is no such protocol; the message lists all.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"--protocol {name}: no such protocol; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def resolve(protocol: Protocol, names: Sequence[str], visible_only: bool | None = None) -> Scoring:
    """Translate a protocol into indices of a dataset whose landmarks have the given names.

    Args:
        protocol: The protocol.
        names: Names of the dataset's landmarks, in their order.
        visible_only: Overrides the protocol's choice unless it is None.

    Raises:
        DataError: The dataset lacks landmarks of the protocol; the message names them.
        ConfigError: The protocol includes OKS and pycocotools is not installed.
    """
    if "oks" in protocol.metrics:
        require()
    index = {plain(name): i for i, name in enumerate(names)}
    needed = [*protocol.points, *protocol.normaliser.get("left", ()), *protocol.normaliser.get("right", ())]
    needed += [point for pair in protocol.torso for point in pair]
    missing = [name for name in dict.fromkeys(needed) if name not in index]
    if missing:
        raise DataError(
            f"--protocol {protocol.name}: the dataset has no landmark {', '.join(missing)}; name its landmarks in "
            f"`landmark_names` of its dataset.json, which now holds {', '.join(names)}"
        )
    definition = {
        key: [index[name] for name in value] if key in ("left", "right") else value
        for key, value in protocol.normaliser.items()
    }
    pairs = [[index[name] for name in pair] for pair in protocol.torso]
    return Scoring(
        normaliser=definition,
        points=[index[name] for name in protocol.points],
        visible_only=protocol.visible_only if visible_only is None else visible_only,
        torso={"type": "torso", "pairs": pairs} if pairs else None,
        sigmas=body_sigmas(protocol.points),
    )


def plain(name: str) -> str:
    """Return a name in lower case with underscores: `left_eye` for `Left Eye`."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def body_sigmas(names: Sequence[str]) -> list[float] | None:
    """Return COCO's standard deviations for OKS if all points are parts of the body, else None.

    The head has that of the nose, the nearest point that COCO has.
    """
    parts = [plain(name).removeprefix("left_").removeprefix("right_").replace("head", "nose") for name in names]
    return [SIGMAS[part] for part in parts] if all(part in SIGMAS for part in parts) else None


def _both(*parts: str) -> Points:
    """Return the left and right point of each part of the body."""
    return tuple(f"{side}_{part}" for part in parts for side in ("left", "right"))


def _between(left: str, right: str) -> dict[str, Any]:
    """Return the definition of a normaliser: the distance between two points."""
    return {"type": "interocular", "left": (left,), "right": (right,)}


_SHOULDERS = _between("left_shoulder", "right_shoulder")
_BOX = {"type": "bbox_sqrt"}
_TORSO = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
_BODY = ("head", *_both("shoulder", "elbow", "wrist", "hip", "knee", "ankle"))
_BIRD = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left_eye", "left_leg", "left_wing", "nape", "right_eye",
    "right_leg", "right_wing", "tail", "throat",
)  # fmt: skip

_UPPER = {"Head": ("head",), "Shoulders": _both("shoulder"), "Elbows": _both("elbow")}
_HANDS = {"Hands": _both("wrist")}
_LOWER = {"Waist": _both("hip"), "Knees": _both("knee"), "Legs": _both("ankle")}

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "mafl",
            points=("left_eye", "right_eye", "nose", "left_mouth", "right_mouth"),
            normaliser=_between("left_eye", "right_eye"),
            split="CelebA without MAFL's test images to train on, these to test on",
            images=(None, 1000),
        ),
        Protocol(
            "aflw",
            points=("left_eye_center", "right_eye_center", "nose_center", "mouth_left_corner", "mouth_right_corner"),
            normaliser=_between("left_eye_center", "right_eye_center"),
            split="10,112 training and 2,991 test images; points are annotated where they are visible",
            images=(10_112, 2_991),
        ),
        Protocol(
            "ls3d",
            points=tuple(str(i) for i in range(68)),
            normaliser=_BOX,
            split="LS3D-W Balanced to test on",
            images=(None, 7_200),
            by=("|yaw|=0,30,60,90",),
        ),
        Protocol(
            "catheads",
            # Seven of nine points (thesis Table 6.8), which excludes "landmarks on the ears". There are six of these; the
            # two left out here are the tips.
            points=("left_eye", "right_eye", "mouth", "left_ear_1", "left_ear_3", "right_ear_1", "right_ear_3"),
            normaliser=_between("left_eye", "right_eye"),
            split="that of Zhang et al. (2018)",
            images=(7_747, 1_257),
        ),
        Protocol(
            "bbcpose",
            points=("head", *_both("shoulder", "elbow", "wrist")),
            normaliser=_SHOULDERS,
            split="every 10th frame of the training videos, the 1,000 test images",
            images=(60_885, 1_000),
            metrics=("nme", "regressed_accuracy", "raw_accuracy"),
            groups={**_UPPER, **_HANDS},
        ),
        Protocol(
            "human36m",
            points=_BODY,
            normaliser=_SHOULDERS,
            split="6 subjects to train on, 1 to test on; six activities; every 50th and every 100th frame",
            images=(48_240, 2_760),
            metrics=("nme", "raw_accuracy", "pck", "oks"),
            groups={**_UPPER, **_LOWER},
            torso=_TORSO,
        ),
        Protocol(
            "pennaction",
            points=_BODY,
            normaliser=_BOX,
            split="six categories of action; the first five videos of each to test on",
            images=(51_661, 1_776),
            metrics=("nme", "raw_accuracy", "pck"),
            groups={**_UPPER, **_HANDS, **_LOWER},
            torso=_TORSO,
            visible_only=True,  # points marked as hidden have no annotated position
        ),
        Protocol(
            "deepfashion",
            points=_both("collar", "sleeve", "waistline", "hem"),
            normaliser=_BOX,
            split="full bodies only, 500 images to test on",
            images=(12_416, 500),
        ),
        Protocol(
            "cub",
            points=_BIRD,
            normaliser=_BOX,
            split="without seabirds, facing one way (Lorenz et al. 2019)",
            visible_only=True,
        ),
    )
}
