"""What a user should know about a run, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_kplm.report.cards import wandering

FEW_IMAGES = 50
"""Figures on fewer images are rough."""
_HARDLY_BETTER = 0.8
"""Of the mean shape's error: the landmarks say little about the annotated points."""
_ON_ONE_PLACE = 1.0
"""Landmarks closer than this on average, percent of the side, are one point twice."""


def warnings(
    quality: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None, *, images: int, rejected: int = 0
) -> list[str]:
    """Those of the label-free quality, then what the annotation tells, then what to mind about the figures."""
    found = [str(text) for text in (quality or {}).get("warnings") or []]
    if metrics:
        found += _of_scores(metrics)
    closest = (metrics or {}).get("min_landmark_distance")
    if not quality and closest is not None and closest < _ON_ONE_PLACE:  # the quality names them
        found.append(f"two landmarks lie on one place: {closest:.1f} % of the side apart on average")
    if images < FEW_IMAGES:
        found.append(f"{images} images only: the figures are rough")
    if rejected:
        found.append(f"{rejected} files could not be used; the dataset's rejected.parquet says why")
    return [text[:1].upper() + text[1:] for text in found]


def _of_scores(metrics: Mapping[str, Any]) -> list[str]:
    found = []
    forward, guess = metrics.get("forward_nme"), metrics.get("mean_shape_nme")
    if forward is not None and guess and forward > _HARDLY_BETTER * guess:
        than = "hardly better" if forward < guess else "no better"
        found.append(
            f"forward NME {forward:.1f} % is {than} than the mean shape's {guess:.1f} %: the landmarks say little about "
            f"the annotated points"
        )
    far_off = wandering(metrics)
    if far_off:
        one = len(far_off) == 1
        found.append(
            f"landmark{'' if one else 's'} {listed(far_off)} {'has' if one else 'have'} a backward error more than twice the "
            f"median landmark's: {'it does' if one else 'they do'} not keep {'its' if one else 'their'} place on the object"
        )
    left_out = metrics.get("left_out") or {}
    if left_out.get("images_without_normaliser"):
        found.append(f"{left_out['images_without_normaliser']} images could not be scored: no normaliser")
    return found


def listed(numbers: Sequence[int]) -> str:
    """`3`, `3 and 7`, `3, 5 and 7`."""
    words = [str(n) for n in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
