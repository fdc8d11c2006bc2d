"""What the page sends of labels: names and points, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ray_kplm.errors import ConfigError
from ray_kplm.methods.visibility import FOUND, INFERRED

_LONGEST_NAME, _MOST_NAMES = 64, 1000
_FAR = 1e6
"""Pixels; no point is farther from the corner of an image."""

Point = tuple[float, float, int]
"""x and y, pixels, and COCO's v: FOUND, or INFERRED for one that is hidden."""


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of points without spaces around them. Raises ConfigError if they are none, or not all different."""
    chosen = tuple(name.strip() for name in names)
    if not 1 <= len(chosen) <= _MOST_NAMES:
        raise ConfigError(f"{len(chosen)} names: give 1 to {_MOST_NAMES}, one a line")
    for name in chosen:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"{name[:20]!r}: is no name; a name has 1 to {_LONGEST_NAME} printable signs")
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice}: is the name of two points; give each its own")
    return chosen


def check_points(points: Any) -> list[Point | None]:
    """Return points as they came from the page. Raises ConfigError if they are none."""
    if not isinstance(points, list):
        raise ConfigError("points: give a list, of [x, y, 1 or 2] or null")
    return [None if point is None else _checked(point) for point in points]


def _checked(point: Any) -> Point:
    if not (isinstance(point, list) and len(point) == 3 and all(type(v) in (int, float) for v in point)):
        raise ConfigError(f"{str(point)[:60]}: is no point; give [x, y, 1 or 2], or null")
    x, y, v = point
    if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) <= _FAR and v in (INFERRED, FOUND)):
        raise ConfigError(f"{str(point)[:60]}: is no point in a picture; give [x, y, 1 or 2], or null")
    return float(x), float(y), int(v)
