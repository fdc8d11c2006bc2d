"""Warnings about a run in plain words: its label-free quality, its scores and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_kplm.evaluation.label_free_warnings import landmarks_text, verb
from ray_kplm.report.cards import unstable_landmarks

FEW_IMAGES = 50
"""Scores on fewer images are imprecise."""
_HARDLY_BETTER = 0.8
"""Share of the mean shape's error above which the landmarks predict the annotated points hardly better than it does."""
_ONE_PLACE = 1.0
"""Two landmarks closer than this on average, percent of the side, are the same point."""


def run_warnings(
    quality: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None, *, images: int, rejected: int = 0
) -> list[str]:
    """Return what a user should know about a run, as sentences without a period.

    Args:
        quality: The content of `quality.json`, whose warnings come first; None if it was not measured.
        metrics: The content of `metrics.json`; None if the run was not scored.
        images: Number of images the measures are computed on.
        rejected: Number of files that could not be ingested.
    """
    texts = [str(text) for text in (quality or {}).get("warnings") or []]
    if metrics:
        texts += _score_warnings(metrics)
    closest = (metrics or {}).get("min_landmark_distance")
    if not quality and closest is not None and closest < _ONE_PLACE:  # the warnings of the quality name the landmarks
        texts.append(f"two landmarks lie at one place: they are {closest:.1f} % of the side apart on average")
    if images < FEW_IMAGES:
        texts.append(f"there are only {images} images: all measures are imprecise")
    if rejected:
        texts.append(f"{rejected} files could not be used; the reasons are in the dataset's rejected.parquet")
    return [text[:1].upper() + text[1:] for text in texts]


def _score_warnings(metrics: Mapping[str, Any]) -> list[str]:
    texts = []
    forward, mean_shape = metrics.get("forward_nme"), metrics.get("mean_shape_nme")
    if forward is not None and mean_shape and forward > _HARDLY_BETTER * mean_shape:
        comparison = "hardly better" if forward < mean_shape else "no better"
        texts.append(
            f"forward NME {forward:.1f} % is {comparison} than the mean shape's {mean_shape:.1f} %: the landmarks say little "
            f"about the annotated points"
        )
    unstable = unstable_landmarks(metrics)
    if unstable:
        texts.append(
            f"{landmarks_text(unstable)} {verb(unstable, 'have', 'has')} a backward error more than twice the median "
            f"landmark's: {verb(unstable, 'they do', 'it does')} not keep {verb(unstable, 'their', 'its')} place on the object"
        )
    left_out = metrics.get("left_out") or {}
    if left_out.get("images_without_normaliser"):
        texts.append(f"{left_out['images_without_normaliser']} images could not be scored: they have no normaliser")
    return texts
