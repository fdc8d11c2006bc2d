"""What the label-free measures warn of, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.flip import is_involution
from ray_kplm.evaluation.label_free import ONE_PATCH
from ray_kplm.schemas import NONE

RARE = 0.2
"""A landmark detected in a smaller share of the images is rare."""
MIRROR_JUMP = 10.0
"""Landmarks whose partners are farther off than this in the mirror image jump between the sides, % of the image's side."""
MOST = 0.5
"""From this share of the landmarks on, left and right as such are not told apart."""


def warnings_of(quality: Mapping[str, Any]) -> list[str]:
    """What is wrong with the landmarks whose measures these are (`evaluation.quality.measure`), worst first; empty: nothing."""
    found = [
        _static(quality),
        _one_patch(quality),
        *_rare(quality),
        _wandering(quality),
        _mirror(quality),
        *_one_place(quality),
    ]
    return [text for text in found if text]


def _static(quality: Mapping[str, Any]) -> str:
    static = quality["static_landmarks"]
    if not static:
        return ""
    if len(static) == quality["landmarks"]:
        return "no landmark moves with the object: all are background, or the images are aligned so that nothing moves"
    return (
        f"{_landmarks(static)} {_verb(static, 'do', 'does')} not move with the object: maybe background; "
        f"method.drop_static=true leaves such out"
    )


def _one_patch(quality: Mapping[str, Any]) -> str:
    coverage = quality["coverage"]
    if coverage is None or coverage >= ONE_PATCH:
        return ""
    return (
        f"the landmarks lie in one patch, {coverage:.1f} % of the side about their middle, and leave out the rest: an "
        f"object that fills its image has more than {ONE_PATCH:.0f} %"
    )


def _rare(quality: Mapping[str, Any]) -> list[str]:
    rates = _values(quality["detection_rate_per_landmark"])
    never, rare = np.flatnonzero(rates == 0), np.flatnonzero((rates > 0) & (rates < RARE))
    texts = []
    if len(never):
        texts.append(f"{_landmarks(never)} {_verb(never, 'are', 'is')} detected in no image")
    if len(rare):
        texts.append(
            f"{len(rare)} of {len(rates)} landmarks {_verb(rare, 'are', 'is')} detected in under {100 * RARE:.0f} % of images: "
            f"{_listed(rare)}"
        )
    return texts


def _wandering(quality: Mapping[str, Any]) -> str:
    """Those that are as far off in known views as if they took no notice of them."""
    error, motion = (_values(quality[f"{name}_per_landmark"]) for name in ("equivariance", "view_motion"))
    wandering = np.flatnonzero(error > motion)
    if not len(wandering):
        return ""
    return (
        f"{_landmarks(wandering)} {_verb(wandering, 'wander', 'wanders')}: when an image is moved and bent "
        f"{_verb(wandering, 'they turn', 'it turns')} up {error[wandering].mean():.0f} % of its side from where "
        f"{_verb(wandering, 'they', 'it')} should be"
    )


def _mirror(quality: Mapping[str, Any]) -> str:
    partners = np.asarray(quality["partners"], np.int64)
    if (partners == NONE).all():  # a generation without mirror images, or a category without a mirror
        return ""
    errors = _values(quality["flip_per_landmark"])
    jumping = np.flatnonzero(errors > MIRROR_JUMP)
    alone = partners == NONE
    if len(jumping) + alone.sum() >= MOST * len(partners) or not is_involution(partners):
        return (
            f"left and right are not told apart: {int(alone.sum())} of {len(partners)} landmarks have no partner in the mirror "
            f"image, {len(jumping)} are found more than {MIRROR_JUMP:.0f} % of the side away from theirs"
        )
    if len(jumping):
        return f"left and right are not told apart at {_landmarks(jumping)}"
    return ""


def _one_place(quality: Mapping[str, Any]) -> list[str]:
    return [f"landmarks {first} and {second} stand on one place" for first, second in quality["landmarks_on_one_place"]]


def _values(numbers: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if number is None else number for number in numbers], np.float64)


def _landmarks(numbers: Sequence[int] | NDArray) -> str:
    return f"landmark{'s' if len(numbers) > 1 else ''} {_listed(numbers)}"


def _verb(numbers: Sequence[int] | NDArray, plural: str, singular: str) -> str:
    return plural if len(numbers) > 1 else singular


def _listed(numbers: Sequence[int] | NDArray) -> str:
    """`3`, `3 and 7`, `2, 3 and 7`."""
    *most, last = (str(int(number)) for number in numbers)
    return f"{', '.join(most)} and {last}" if most else last
