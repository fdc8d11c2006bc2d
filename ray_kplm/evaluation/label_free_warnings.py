"""Warnings about landmarks in plain words, from their label-free measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.flip import is_involution
from ray_kplm.evaluation.label_free import ONE_PATCH
from ray_kplm.schemas import NONE

RARE = 0.2
"""A landmark is rare if it is detected in a smaller share of the images."""
MIRROR_JUMP = 10.0
"""A landmark changes sides if it is farther than this from its partner in the mirror image, % of the image's side."""
GUESSED = 0.52
"""A landmark whose `transfer` is at most this looks no more alike in two images than by chance. Over 256 images landmarks at
random places have 0.49 to 0.51; annotated points 0.54 (people at sports) to 0.65 (faces)."""
STAYS_BEHIND = 0.5
"""Landmarks rely on the layout if they stay behind by at least this share of the motion of a moved object."""
OUTSIDE = 0.5
"""A landmark lies beside the object if it is in the object's box in less than this share of the images."""
MOST = 0.5
"""Share of the landmarks without a consistent mirror partner from which on left and right count as confused in general."""

Landmarks = Sequence[int] | NDArray[np.integer]


def warnings_of(quality: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with landmarks, the worst first.

    Args:
        quality: Their measures, from `label_free.measure`.

    Returns:
        One sentence for each problem, without a period; empty if there is none.
    """
    texts = [
        _static(quality),
        _one_patch(quality),
        *_rare(quality),
        _unstable(quality),
        _wrong_place(quality),
        _stays_behind(quality),
        _outside(quality),
        _mirror(quality),
        *_one_place(quality),
    ]
    return [text for text in texts if text]


def listed(numbers: Landmarks) -> str:
    """Return numbers as an enumeration: `3`, `3 and 7`, `2, 3 and 7`."""
    *most, last = (str(int(number)) for number in numbers)
    return f"{', '.join(most)} and {last}" if most else last


def landmarks_text(numbers: Landmarks) -> str:
    """Return an enumeration of landmarks: `landmark 3`, `landmarks 3 and 7`."""
    return f"{verb(numbers, 'landmarks', 'landmark')} {listed(numbers)}"


def verb(numbers: Landmarks, plural: str, singular: str) -> str:
    """Return the form of a word that agrees with the number of landmarks."""
    return plural if len(numbers) > 1 else singular


def _static(quality: Mapping[str, Any]) -> str:
    static = quality["static_landmarks"]
    if not static:
        return ""
    if len(static) == quality["landmarks"]:
        return "no landmark moves with the object: all are background, or the images are aligned so that nothing moves"
    return (
        f"{landmarks_text(static)} {verb(static, 'do', 'does')} not move with the object and may be background; "
        f"method.drop_static=yes drops such landmarks"
    )


def _one_patch(quality: Mapping[str, Any]) -> str:
    coverage = quality["coverage"]
    if coverage is None or coverage >= ONE_PATCH:
        return ""
    return (
        f"the landmarks lie in one patch, {coverage:.1f} % of the side about their mean, and miss the rest of the object: "
        f"landmarks of an object that fills its image have more than {ONE_PATCH:.0f} %"
    )


def _rare(quality: Mapping[str, Any]) -> list[str]:
    rates = _values(quality["detection_rate_per_landmark"])
    never, rare = np.flatnonzero(rates == 0), np.flatnonzero((rates > 0) & (rates < RARE))
    texts = []
    if len(never):
        texts.append(f"{landmarks_text(never)} {verb(never, 'are', 'is')} detected in no image")
    if len(rare):
        texts.append(
            f"{len(rare)} of {len(rates)} landmarks {verb(rare, 'are', 'is')} detected in under {100 * RARE:.0f} % of images: "
            f"{listed(rare)}"
        )
    return texts


def _unstable(quality: Mapping[str, Any]) -> str:
    """Warn of landmarks that are as far off in known views as if the detector ignored the view."""
    error, motion = (_values(quality[f"{name}_per_landmark"]) for name in ("equivariance", "view_motion"))
    unstable = np.flatnonzero(error > motion)
    if not len(unstable):
        return ""
    return (
        f"{landmarks_text(unstable)} {verb(unstable, 'are', 'is')} unstable: when an image is warped, "
        f"{verb(unstable, 'they are', 'it is')} {error[unstable].mean():.0f} % of its side off on average"
    )


def _wrong_place(quality: Mapping[str, Any]) -> str:
    """Warn of landmarks at which images look no more alike than elsewhere, besides those that are static."""
    shares = _values(quality.get("transfer_per_landmark") or [])
    wrong = np.setdiff1d(np.flatnonzero(shares <= GUESSED), quality["static_landmarks"])
    if not len(wrong):
        return ""
    return (
        f"images look no more alike at {landmarks_text(wrong)} than at {verb(wrong, 'their places', 'its place')} in a random "
        f"image: {verb(wrong, 'they are', 'it is')} not the same part of the object in every image"
    )


def _stays_behind(quality: Mapping[str, Any]) -> str:
    lag = quality.get("shift_lag")
    if lag is None or lag < STAYS_BEHIND:
        return ""
    return (
        f"landmarks do not follow the object: when it is moved over its background, they stay behind by {100 * lag:.0f} % of "
        f"the way, so they are known by the layout of the image and not by the look of the object's parts"
    )


def _outside(quality: Mapping[str, Any]) -> str:
    outside = np.flatnonzero(_values(quality.get("inside_box_per_landmark") or []) < OUTSIDE)
    if not len(outside):
        return ""
    return f"{landmarks_text(outside)} {verb(outside, 'lie', 'lies')} outside of the object's box in most images"


def _mirror(quality: Mapping[str, Any]) -> str:
    partners = np.asarray(quality["partners"], np.int64)
    if (partners == NONE).all():  # a method without mirror images, or a category without mirror symmetry
        return ""
    errors = _values(quality["flip_per_landmark"])
    jumping = np.flatnonzero(errors > MIRROR_JUMP)
    single = partners == NONE
    if len(jumping) + single.sum() >= MOST * len(partners) or not is_involution(partners):
        return (
            f"left and right are confused: {int(single.sum())} of {len(partners)} landmarks have no partner in the mirror "
            f"image, {len(jumping)} are found more than {MIRROR_JUMP:.0f} % of the side from theirs"
        )
    if len(jumping):
        return f"left and right are confused at {landmarks_text(jumping)}"
    return ""


def _one_place(quality: Mapping[str, Any]) -> list[str]:
    return [f"landmarks {first} and {second} lie at one place" for first, second in quality["landmarks_on_one_place"]]


def _values(numbers: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if number is None else number for number in numbers], np.float64)
