"""What the card of a shared detector says of its points: how they were made, and how well they fit the labels."""

from __future__ import annotations

from typing import Any

from ray_kplm.analysis.point_set_list import read_facts
from ray_kplm.detectors.stored import is_exported, is_run
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, LANDMARKS, point_folder
from ray_kplm.run import Run


def named_points(run: Run, name: str | None, layout: Layout) -> list[tuple[str, str, str]]:
    """Return each point with its partner in the mirror image and its cross-validated error, which may be empty.

    There are none if their names are numbers.

    Args:
        run: The run, or an exported detector.
        name: Of the set of points of a run; None of an exported detector.
        layout: Of the points.
    """
    if not layout.is_named:
        return []
    error_of = {row.get("name"): row.get("error") for row in _facts(run, name).get("table", ())}
    partners = ("" if partner == k else layout.names[partner] for k, partner in enumerate(layout.partners))
    return [
        (point, partner, _percent(error_of.get(point))) for point, partner in zip(layout.names, partners, strict=True)
    ]


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
    images, error = facts.get("images"), _percent(facts.get("error"))
    on = f"{images:,} labelled images" if isinstance(images, int) else "labelled images"
    if has_own_network(run, name):
        said = [f"The points are those of {on}, found by a network of their own that was trained on these"]
    else:
        said = [f"The points are those of {on}: a map from the landmarks, fitted on these, gives them"]
    return [*said, f"Their cross-validated error there is {error} of the object's size"] if error else said


def _edit(points: PointSet) -> str:
    counts = (points.shares > 0).sum(axis=1)
    merged, dropped = int((counts > 1).sum()), int((points.shares == 0).all(axis=0).sum())
    said = [f"{len(points) - merged} points are landmarks that a person chose or named"]
    said += [f"{merged} points are the mean of several landmarks"] if merged else []
    said += [f"{dropped} landmarks are left out"] if dropped else []
    return ", ".join(said)


def _facts(run: Run, name: str | None) -> dict[str, Any]:
    """Return how a set of points was fitted; nothing if it was not."""
    return {} if name is None or not is_run(run) else read_facts(point_folder(run.folder, name)) or {}


def _percent(value: Any) -> str:
    return f"{value:.3g} %" if isinstance(value, (int, float)) else ""
