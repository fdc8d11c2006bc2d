"""The names, merges and edges that the page gives the landmarks of a run, as the file that `kplm edit` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ray_kplm.analysis.edit import apply_file, flip_map_of
from ray_kplm.points.edit import read_edit
from ray_kplm.points.stored import EDITED, point_folder
from ray_kplm.run import Run

FILE = "points.yaml"
"""What the page wrote last, beside the edited points of the run: a copy of it can be edited further."""


@dataclass(frozen=True)
class EditedPoint:
    """A point that is made of landmarks.

    Attributes:
        landmarks: One, or several whose mean it is.
        name: Its name.
        partner: Name of its partner in the mirror image; None: it has none.
    """

    landmarks: tuple[int, ...]
    name: str
    partner: str | None = None


def save_edit(run: Run, points: Sequence[EditedPoint], edges: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """Make the edited points of a run, and write the file that says so.

    Returns:
        The file, and notes for the user.

    Raises:
        ConfigError: The points break a rule.
        RunError: Another command edits the points.
    """
    content, folder = as_yaml(points, edges).encode(), point_folder(run.folder, EDITED)
    read_edit(content, FILE, flip_map_of(run))  # before a file that is none is written
    folder.write_bytes(FILE, content)
    applied = apply_file(run, f"{folder}/{FILE}")
    return f"{folder}/{FILE}", list(applied.notes)


def as_yaml(points: Sequence[EditedPoint], edges: Sequence[tuple[str, str]]) -> str:
    """Return the content of `points.yaml`: see `points.edit`."""
    plain = {"points": [_entry(point) for point in points], "edges": [list(edge) for edge in edges]}
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return text


def _entry(point: EditedPoint) -> dict[str, Any]:
    several = len(point.landmarks) > 1
    made_of = {"landmarks": list(point.landmarks)} if several else {"landmark": point.landmarks[0]}
    return {**made_of, "name": point.name, "partner": point.partner}
