"""Protocols of the field's datasets, ready by name: what is scored, by which normaliser, on which split (thesis 2.7).

A protocol names landmarks, and finds them among a dataset's `landmark_names` in whatever order these are; case, spaces
and hyphens do not matter. The names that the readers in `datasets/` give:

    mafl         left_eye right_eye nose left_mouth right_mouth
    aflw         21, among them left_eye_center right_eye_center nose_center mouth_left_corner mouth_right_corner
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
    """One dataset's, by the names of its landmarks."""

    name: str
    points: Points
    """What is scored."""
    normaliser: Mapping[str, Any]
    """As `normalisers.normaliser`, with names for indices."""
    split: str
    """The rule by which the thesis splits the set."""
    images: tuple[int | None, int | None] = (None, None)
    """Training and test images of the thesis; None: it does not say."""
    metrics: tuple[str, ...] = ("nme",)
    """Of nme, regressed_accuracy, raw_accuracy, pck, oks."""
    within: tuple[int, int] = (6, 128)
    """Accuracy: a point counts as found within so many pixels, in an image of this side."""
    pck_share: float = 0.3
    """PCK: the share of the torso's length."""
    groups: Mapping[str, Points] = field(default_factory=dict)
    """Points whose accuracy is reported together. PCK and OKS are over the points of all groups."""
    torso: tuple[Points, ...] = ()
    """Pairs of points a torso's length apart."""
    visible_only: bool = False
    """Whether points that are annotated though hidden are left out."""
    by: tuple[str, ...] = ()
    """Buckets of the test images, as `buckets.bucketed` reads them."""


def find(name: str) -> Protocol:
    """The protocol of a name. Raises ConfigError naming those there are."""
    if name not in PROTOCOLS:
        raise ConfigError(f"--protocol {name}: no such protocol; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def resolve(protocol: Protocol, names: Sequence[str], visible_only: bool | None = None) -> Scoring:
    """The protocol in indices of a dataset whose landmarks have these names.

    visible_only: in place of the protocol's; None: the protocol's. Raises DataError naming what is missing, ConfigError for
    OKS without pycocotools.
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
            f"`landmark_names` of its dataset.json, where it now has {', '.join(names)}"
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
    """`Left Eye` -> `left_eye`."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def body_sigmas(names: Sequence[str]) -> list[float] | None:
    """COCO's, of points that are all of the body, else None. The head's is the nose's: COCO has no nearer point."""
    parts = [plain(name).removeprefix("left_").removeprefix("right_").replace("head", "nose") for name in names]
    return [SIGMAS[part] for part in parts] if all(part in SIGMAS for part in parts) else None


def _both(*parts: str) -> Points:
    return tuple(f"{side}_{part}" for part in parts for side in ("left", "right"))


def _two(left: str, right: str) -> dict[str, Any]:
    return {"type": "interocular", "left": (left,), "right": (right,)}


_SHOULDERS = _two("left_shoulder", "right_shoulder")
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
            normaliser=_two("left_eye", "right_eye"),
            split="CelebA without MAFL's test images to train on, these to test on",
            images=(None, 1000),
        ),
        Protocol(
            "aflw",
            points=("left_eye_center", "right_eye_center", "nose_center", "mouth_left_corner", "mouth_right_corner"),
            normaliser=_two("left_eye_center", "right_eye_center"),
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
            # 7 of 9 (thesis Table 6.8). It says "excluding landmarks on the ears", of which there are six: those left out
            # are the two at their ends.
            points=("left_eye", "right_eye", "mouth", "left_ear_1", "left_ear_3", "right_ear_1", "right_ear_3"),
            normaliser=_two("left_eye", "right_eye"),
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
            visible_only=True,  # what it marks as hidden has no position of its own
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
