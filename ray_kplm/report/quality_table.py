"""Tables of a run as text, for the terminal and for logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_kplm.evaluation.label_free import PER_LANDMARK
from ray_kplm.schemas import NONE

_COLUMNS = (
    ("equivariance", "equivariance_error", "{:.2f} %"),
    ("mirror", "flip_error", "{:.2f} %"),
    ("detected", "detection_rate", "{:.0%}"),
    ("again", "repeatability", "{:.0%}"),
    ("sharpness", "peak_sharpness", "{:.2f}"),
    ("compactness", "cluster_compactness", "{:.2f}"),
    ("spread", "positional_spread", "{:.1f} %"),
)
"""Heading, measure (see `evaluation.quality.measure`), format."""


def quality_table(quality: Mapping[str, Any]) -> str:
    """A row a landmark, their means, and the warnings; measures that the detector does not have are left out."""
    columns = [column for column in _COLUMNS if quality[column[1]] is not None]
    rows = [["landmark", *(heading for heading, _, _ in columns), "partner"]]
    for number, partner in enumerate(quality["partners"]):
        cells = [_cell(quality[PER_LANDMARK[name]][number], form) for _, name, form in columns]
        rows.append([str(number), *cells, "-" if partner == NONE else str(partner)])
    rows.append(["mean", *(_cell(quality[name], form) for _, name, form in columns), ""])
    closest, coverage = (_cell(quality[name], "{:.1f} %") for name in ("min_landmark_distance", "coverage"))
    facts = [
        f"{quality['images']} training images; errors, distances and spread in % of the image's side",
        f"closest two landmarks: {closest}; coverage: {coverage}; "
        f"score (lower is better): {_cell(quality['score'], '{:.2f}')}",
    ]
    return "\n".join([*aligned(rows), *facts, *(f"warning: {text}" for text in quality["warnings"])])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells, the first column to the left and all others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        f"{row[0]:{widths[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
