"""A suggestion as a `points.yaml` with comments, which is valid as it is."""

from __future__ import annotations

import numpy as np

from ray_kplm.points.suggestion import Suggestion


def suggested_file(found: Suggestion, run: str, file: str, picture: str = "") -> str:
    """Return the file.

    Every landmark is a point there. Those in doubt are marked, and nobody's edges.

    Args:
        found: What the data say.
        run: Path of the run.
        file: Path of the file, for the command that applies it.
        picture: Name of a picture that shows the numbers; empty: none.
    """
    return "\n".join([*_head(found, run, file, picture), *_points(found), *_edges(found)]) + "\n"


def _head(found: Suggestion, run: str, file: str, picture: str) -> list[str]:
    landmarks = len(found.partners)
    lines = [
        f"{landmarks} landmarks, as {found.images:,} images show them. Edit, then: kplm edit {run} {file}",
        f"Numbers are landmarks{f', drawn in {picture}' if picture else ''}; `kplm report` shows each of them closely.",
        "",
        "Name one: name: left_eye.   Drop one: delete its line.   The points are in the order of the lines.",
        "Merge some: - {landmarks: [4, 9], name: left_eye} in place of both lines; it is their mean.",
        "Partners and edges may be numbers of landmarks, or names. They need no change when you rename or drop.",
    ]
    if found.all_static:
        lines += ["", "No landmark moves over the images: they are aligned, or all landmarks are background."]
    return [f"# {line}".rstrip() for line in lines]


def _points(found: Suggestion) -> list[str]:
    entries = []
    for k, partner in enumerate(found.partners):
        mirrored = "" if partner == k else f", partner: {partner}"
        entries.append(f"  - {{landmark: {k}, name: landmark_{k}{mirrored}}}")
    width = max(map(len, entries), default=0)
    lines = [f"{entry:<{width}}  # {_comment(found, k)}" for k, entry in enumerate(entries)]
    close = [
        f"  # on one place, {distance:.1f} % of the image's side apart; merge? {{landmarks: [{a}, {b}], name: ...}}"
        for a, b, distance in found.on_one_place
    ]
    return ["points:", *lines, *close]


def _comment(found: Suggestion, k: int) -> str:
    facts = [f"found in {100 * found.found[k]:.0f} %"]
    if np.isfinite(found.probability[k]):
        facts.append(f"probability {found.probability[k]:.2f}")
    if np.isfinite(found.spread[k]):
        facts.append(f"moves {found.spread[k]:.1f} %")
    reasons = found.doubts.get(k)
    return f"drop? {'; '.join(reasons)}" if reasons else ", ".join(facts)


def _edges(found: Suggestion) -> list[str]:
    if not found.edges:
        return ["edges: []"]
    entries = [f"  - [{a}, {b}]" for a, b in found.edges]
    width = max(map(len, entries))
    lines = [f"{entry:<{width}}  # {v:.1f} %" for entry, v in zip(entries, found.variation, strict=True)]
    return [
        "# Pairs that move together: by how much their distance varies over the images, % of the object's size.",
        "edges:",
        *lines,
    ]
