"""What an edit made of the landmarks, for a report that shows the landmarks one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging.draw import Marks, palette
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.schemas import NONE


@dataclass(frozen=True)
class EditedLandmark:
    """What became of a landmark.

    Attributes:
        name: Of its point; empty if it is dropped, or without an edit.
        is_dropped: Whether no point has it.
        merged: The other landmarks of its point.
        partner: The first landmark of its point's mirror partner; None for none, its own number for itself.
        partner_name: Name of this point; empty without an edit.
        joined: Names of the points that edges join it with.
    """

    name: str = ""
    is_dropped: bool = False
    merged: tuple[int, ...] = ()
    partner: int | None = None
    partner_name: str = ""
    joined: tuple[str, ...] = ()


def edited_landmarks(points: PointSet | None, flip_map: Sequence[int], landmarks: int) -> list[EditedLandmark]:
    """Return what became of each of the K landmarks.

    Args:
        points: The points of an edit; None without one.
        flip_map: Mirror partner of each landmark, `NONE` for no partner.
        landmarks: K.
    """
    if points is None:
        partners = [flip_map[k] if k < len(flip_map) else NONE for k in range(landmarks)]
        return [EditedLandmark(partner=None if partner == NONE else int(partner)) for partner in partners]
    layout, found = points.layout, [EditedLandmark(is_dropped=True)] * landmarks
    groups = [np.flatnonzero(row).tolist() for row in points.shares]
    for number, (name, group) in enumerate(zip(layout.names, groups, strict=True)):
        partner = layout.partners[number]
        joined = tuple(layout.names[b if a == number else a] for a, b in layout.skeleton if number in (a, b))
        for k in group:
            there = k if partner == number else groups[partner][0]
            merged = tuple(other for other in group if other != k)
            found[k] = EditedLandmark(name, False, merged, there, layout.names[partner], joined)
    return found


def edge_path(points: PointSet | None, xy: NDArray[np.float64], hollow: NDArray[np.bool_]) -> str:
    """Return the edges of an image as data of an SVG path; an edge needs all landmarks of both of its points.

    Args:
        points: The points of an edit; None without one.
        xy: (K, 2), landmarks in the picture.
        hollow: (K,), those that are not found.
    """
    if points is None:
        return ""
    places = points.move(np.where(hollow[:, None], np.nan, xy)[None].astype(np.float32), 1)[0]
    ends = [(places[a], places[b]) for a, b in points.layout.skeleton]
    whole = [(a, b) for a, b in ends if np.isfinite(a + b).all()]
    return "".join(f"M{a[0]:.0f} {a[1]:.0f}L{b[0]:.0f} {b[1]:.0f}" for a, b in whole)


def marks_of(points: PointSet | None, landmarks: int, *, beside: bool = False) -> Marks:
    """Return how the points of an edit are drawn: each in the colour of its first landmark; without one, the landmarks."""
    if points is None:
        return Marks.numbered(landmarks, beside=beside)
    first = (points.shares > 0).argmax(axis=1)
    return Marks(points.layout.names, palette(points.landmarks)[first], points.layout.skeleton, beside)


def marks_with(layout: Layout, *, beside: bool = False) -> Marks:
    """Return how points with names and edges are drawn; without names they have their numbers."""
    labels = layout.names if layout.is_named else [str(k) for k in range(len(layout))]
    return Marks(labels, palette(len(layout)), layout.skeleton, beside)


def edit_line(points: PointSet) -> str:
    """Return what an edit made of the landmarks, in a sentence without a period."""
    groups = (points.shares > 0).sum(axis=1)
    dropped = np.flatnonzero((points.shares == 0).all(axis=0)).tolist()
    merged = int((groups > 1).sum())
    facts = [f"{len(points)} points are made of them"]
    facts += [f"{merged} {'are' if merged > 1 else 'is'} the mean of several landmarks"] if merged else []
    facts += [f"dropped: {', '.join(map(str, dropped))}"] if dropped else []
    return "; ".join(facts)
