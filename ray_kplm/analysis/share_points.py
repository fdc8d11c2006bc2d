"""What the card of a shared detector says of its points: how they were made, and how well they fit the labels."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ray_kplm.detectors.stored import is_exported, is_run
from ray_kplm.errors import DamageError
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, LANDMARKS, point_folder
from ray_kplm.run import Run

ADAPTED = "adapted.json"
"""Beside a set of points that was fitted on labels: what it was fitted on, and its error."""


def named_points(layout: Layout) -> list[tuple[str, str]]:
    """Return the name of each point and that of its partner in the mirror image, or empty; none if names are numbers."""
    if not layout.is_named:
        return []
    partners = (layout.names[partner] if partner != k else "" for k, partner in enumerate(layout.partners))
    return list(zip(layout.names, partners, strict=True))


def has_own_network(run: Run, name: str | None) -> bool:
    """Return whether a set of points of a run has a network of its own, so that no measure of the run is of it."""
    return is_run(run) and name is not None and is_exported(point_folder(run.folder, name))


def how_made(run: Run, name: str | None, points: PointSet | None) -> list[str]:
    """Return sentences without a period on how points were made of landmarks; none for the landmarks themselves.

    Args:
        run: The run, or an exported detector.
        name: Of the set of points of a run; None of an exported detector.
        points: The set.
    """
    if name == LANDMARKS or points is None:
        return []
    if name == EDITED:
        return [_edit(points)]
    if name is None:
        return ["The points are made of them"]
    facts = _facts(run, name)
    images = facts.get("images", facts.get("labels"))
    on = f"{images:,} labelled images" if isinstance(images, int) else "labelled images"
    way = (
        "A network of their own, on the frozen backbone, was trained"
        if has_own_network(run, name)
        else "They were fitted"
    )
    error, unit = facts.get("error"), facts.get("unit", "")
    said = [f"The points are placed by hand in {on}. {way} on these"]
    if isinstance(error, (int, float)):
        said.append(f"The cross-validated error is {error:.3g} {unit}".rstrip())
    return said


def _edit(points: PointSet) -> str:
    counts = (points.shares > 0).sum(axis=1)
    dropped = int((points.shares == 0).all(axis=0).sum())
    merged = int((counts > 1).sum())
    kept = f"{int((counts == 1).sum())} of them are the points"
    further = [
        f"{merged} points are the mean of several" if merged else "",
        f"{dropped} are left out" if dropped else "",
    ]
    return "A person looked at them and named them: " + ", ".join([kept, *filter(None, further)])


def _facts(run: Run, name: str) -> dict[str, Any]:
    """Return what stands beside a set of points of how it was fitted; nothing where that cannot be read."""
    folder = point_folder(run.folder, name)
    with suppress(DamageError):
        return folder.read_object(ADAPTED) if folder.is_file(ADAPTED) else {}
    return {}
