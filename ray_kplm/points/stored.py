"""Where the points of a run stand on storage.

    <run>/points/edited/points.json       what `kplm edit` made of the landmarks: all later outputs have these points
    <run>/points/<name>/points.json       what `kplm adapt --name` fitted: outputs have them if `--points` says so

An exported detector has one set at most, `points.json` beside its network.
"""

from __future__ import annotations

import re
from typing import Any

from ray_kplm.errors import ConfigError, DataError
from ray_kplm.points.point_set import PointSet
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import check_seal, seal

POINTS = "points"
"""Folder of the sets of points of a run."""
POINTS_FILE = "points.json"
EDITED = "edited"
"""The set that an edit made, which outputs have by default."""
LANDMARKS = "landmarks"
"""Names the landmarks themselves, whatever an edit made of them."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_point_set_name(name: str) -> None:
    """Raise ConfigError for a name that a new set of points cannot have."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name {name}: is made of letters, digits, '_', '-' and '.', 64 at most, and begins with neither"
        )
    if name in (EDITED, LANDMARKS):
        raise ConfigError(f"--name {name}: is taken by the landmarks themselves; choose another name")


def point_folder(run_folder: Folder, name: str) -> Folder:
    """Return the folder of a set of points of a run."""
    return run_folder / POINTS / name


def point_sets(run_folder: Folder) -> list[str]:
    """Return the names of the sets that a run has, sorted; `edited` is among them if there is an edit."""
    folder = run_folder / POINTS
    return sorted(name for name in folder.folders() if (folder / name).is_file(POINTS_FILE))


def chosen_name(run_folder: Folder, name: str | None) -> str:
    """Return which set is meant: by default that of an edit, or the landmarks themselves.

    Raises:
        DataError: There is no set of this name; the error names those that there are.
    """
    if name is None:
        return EDITED if point_folder(run_folder, EDITED).is_file(POINTS_FILE) else LANDMARKS
    if name != LANDMARKS and not point_folder(run_folder, name).is_file(POINTS_FILE):
        known = ", ".join([LANDMARKS, *point_sets(run_folder)])
        raise DataError(f"--points {name}: {run_folder} has no such points; it has {known}; `kplm adapt` makes others")
    return name


def write_point_set(folder: Folder, points: PointSet, **facts: Any) -> None:
    """Write a set to its folder, atomically, with facts about it, which `read_point_set` leaves out."""
    folder.write_json(POINTS_FILE, seal({**facts, **points.to_dict()}))


def read_point_set(folder: Folder) -> PointSet | None:
    """Return the set in a folder; None if there is none. Raises DamageError if it cannot be read."""
    if not folder.is_file(POINTS_FILE):
        return None
    with folder.parsing(POINTS_FILE):
        plain = folder.read_object(POINTS_FILE)
        check_seal(plain)
        return PointSet.from_dict(plain)
