"""The label-free measures of a run as a text table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_kplm.evaluation.label_free import PER_LANDMARK
from ray_kplm.evaluation.layout_reliance import SHIFT
from ray_kplm.report.text_table import NO_VALUE, align, cell
from ray_kplm.schemas import NONE

_COLUMNS = (
    ("equivariance", "equivariance_error", "{:.2f} %"),
    ("mirror", "flip_error", "{:.2f} %"),
    ("detected", "detection_rate", "{:.0%}"),
    ("repeatability", "repeatability", "{:.0%}"),
    ("sharpness", "peak_sharpness", "{:.2f}"),
    ("compactness", "cluster_compactness", "{:.2f}"),
    ("spread", "positional_spread", "{:.1f} %"),
    ("transfer", "landmark_transfer", "{:.2f}"),
    ("moved", "shift_error", "{:.1f} %"),
)
"""Heading, measure (see `evaluation.label_free.measure`) and format of each column."""


def quality_table(quality: Mapping[str, Any]) -> str:
    """Return a table with a row for each landmark, the means, and the warnings.

    Measures that the detector does not have are left out.

    Args:
        quality: The measures of `evaluation.label_free.measure`, with `warnings`.
    """
    columns = [column for column in _COLUMNS if quality[column[1]] is not None]
    rows = [["landmark", *(heading for heading, _, _ in columns), "partner"]]
    for number, partner in enumerate(quality["partners"]):
        cells = [cell(quality[PER_LANDMARK[name]][number], form) for _, name, form in columns]
        rows.append([str(number), *cells, NO_VALUE if partner == NONE else str(partner)])
    rows.append(["mean", *(cell(quality[name], form) for _, name, form in columns)])
    closest, coverage = (cell(quality[name], "{:.1f} %") for name in ("min_landmark_distance", "coverage"))
    notes = [
        f"{quality['images']} training images; errors, distances and spread in % of the image's side",
        f"closest two landmarks: {closest}; coverage: {coverage}; score (lower is better): {cell(quality['score'])}",
    ]
    if quality["transfer"] is not None:
        warped, mirror = cell(quality["transfer"], "{:.2f}"), cell(quality["mirror_identity"], "{:.2f}")
        notes.append(
            f"images warped to each other through the landmarks: transfer {warped} (guessing: 0.5), mirror {mirror}"
        )
    if quality["shift_error"] is not None:
        notes.append(_reliance(quality))
    if quality["inside_box"] is not None:
        inside, covered = cell(quality["inside_box"], "{:.0%}"), cell(quality["box_coverage"], "{:.0%}")
        notes.append(f"landmarks in the object's box: {inside}; of its sides they span: {covered}")
    if quality["against"] is not None:
        notes.append(_agreement(quality["against"]))
    return "\n".join([*align(rows), *notes, *(f"warning: {text}" for text in quality["warnings"])])


def _reliance(quality: Mapping[str, Any]) -> str:
    """Return a line about layout reliance."""
    moved, median, background, identity = (
        cell(quality[name], form)
        for name, form in (
            ("shift_error", "{:.1f} %"),
            ("shift_error_median", "{:.1f} %"),
            ("background_error_median", "{:.1f} %"),
            ("position_identity", "{:.0%}"),
        )
    )
    return (
        f"object moved by {100 * SHIFT:.0f} % over its background: landmarks are off by {moved} (median {median}); on another "
        f"background: {background} (median); identity told by canonical position alone: {identity}"
    )


def _agreement(against: Mapping[str, Any]) -> str:
    """Return a line about the agreement with another run."""
    error, by_mean, share = (
        cell(against[name], form)
        for name, form in (("error", "{:.1f} %"), ("mean_position_error", "{:.1f} %"), ("agreement", "{:.0%}"))
    )
    return (
        f"against {against['run']}: its landmarks predict these with an error of {error} (their mean position: {by_mean}); "
        f"agreement {share}"
    )
