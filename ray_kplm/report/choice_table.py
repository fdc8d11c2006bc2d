"""The choice of the numbers of landmarks and clusters as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_kplm.report.text_table import align


def choice_table(choice: Mapping[str, Any]) -> str:
    """Return the evidence as a table with a row for each K, then the numbers and how sure they are.

    Args:
        choice: The content of the manifest, see `steps.choose.choose`.
    """
    rows = [["K", "agreement", "by chance", "excess", "s.e.", "found", ""]]
    for row in choice["rows"]:
        values = [f"{row[name]:.2f}" for name in ("agreement", "chance", "excess", "standard_error")]
        values.append(f"{row['found']:.0%}")
        rows.append([str(row["landmarks"]), *values, "chosen" if row["landmarks"] == choice["landmarks"] else ""])
    return "\n".join([*align(rows, left=(6,)), choice_line(choice), *choice["doubts"]])


def choice_line(choice: Mapping[str, Any]) -> str:
    """Return the chosen numbers and how sure they are, in one line."""
    source = f"{choice['images']} images of {choice['points_per_image']:.1f} keypoints"
    numbers = f"K = {choice['landmarks']}, M = {choice['clusters']}"
    if "range" not in choice:
        return f"{numbers}, from {source}"
    low, high = choice["range"]
    return f"{numbers}, {'unsure' if choice['doubts'] else 'sure'}: {low} to {high} over other splits of {source}"
