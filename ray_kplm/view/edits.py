"""The names, merges and edges that the page gives the landmarks of a run, as the file that `kplm edit` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, point_folder, write_point_set
from ray_kplm.run import Run

FILE = "points.yaml"


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
    """Write `points.yaml` to a run, and make its edited points from it.

    Returns:
        The file, and notes for the user.

    Raises:
        ConfigError: The points break a rule.
    """
    run.folder.write_bytes(FILE, as_yaml(points, edges).encode())
    names = [point.name for point in points]
    partners = [names.index(p.partner) if p.partner in names else n for n, p in enumerate(points)]
    pairs = tuple((names.index(a), names.index(b)) for a, b in edges)
    from ray_kplm.detectors.stored import landmark_predictor

    count = len(landmark_predictor(run, "landmarks").layout)
    layout = Layout("", tuple(names), tuple(partners), pairs)
    write_point_set(point_folder(run.folder, EDITED), PointSet.of_groups(layout, [p.landmarks for p in points], count))
    return f"{run.folder}/{FILE}", []


def as_yaml(points: Sequence[EditedPoint], edges: Sequence[tuple[str, str]]) -> str:
    """Return the content of `points.yaml`: see `points.edit`."""
    listed = [_entry(point) for point in points]
    plain = {"points": listed, "edges": [list(edge) for edge in edges]}
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return text


def _entry(point: EditedPoint) -> dict[str, Any]:
    several = len(point.landmarks) > 1
    made_of = {"landmarks": list(point.landmarks)} if several else {"landmark": point.landmarks[0]}
    return {**made_of, "name": point.name, "partner": point.partner}
