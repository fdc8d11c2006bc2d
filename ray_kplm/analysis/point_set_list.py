"""The sets of points of a run: listed, and removed. Nothing here needs PyTorch."""

from __future__ import annotations

from typing import Any

from ray_kplm.errors import DataError
from ray_kplm.locking import lock_folder
from ray_kplm.points.stored import EDITED, POINTS_FILE, check_point_set_name, point_folder, point_sets, read_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import check_seal

FACTS = "adapt.json"
"""How `kplm adapt` fitted a set, beside its points."""


def read_facts(folder: Folder) -> dict[str, Any] | None:
    """Return how the set in a folder was fitted; None if `kplm adapt` fitted none. Raises DamageError if it cannot be read."""
    if not folder.is_file(FACTS) or not folder.is_file(POINTS_FILE):
        return None
    with folder.parsing(FACTS):
        facts = folder.read_object(FACTS)
        check_seal(facts)
    return facts


def list_point_sets(run: Run) -> list[dict[str, Any]]:
    """Return a dictionary for each set of a run: name, points, origin, objects that were labelled, error in percent."""
    rows = []
    for name in point_sets(run.folder):
        folder = point_folder(run.folder, name)
        points, facts = read_point_set(folder), read_facts(folder) or {}
        origin = "kplm edit" if name == EDITED else "kplm adapt"
        known = {key: facts.get(key) for key in ("objects", "error", "version")}
        rows.append({"name": name, "points": None if points is None else len(points), "origin": origin, **known})
    return rows


def remove_point_set(run: Run, name: str) -> None:
    """Remove a set with its versions.

    Raises:
        ConfigError: It is the edit of the run.
        DataError: There is none of this name.
        RunError: Another command writes it.
    """
    check_point_set_name(name)
    folder = point_folder(run.folder, name)
    if not folder.is_file(POINTS_FILE):
        known = ", ".join(point_sets(run.folder)) or "none"
        raise DataError(f"--remove {name}: {run.folder} has no such points; it has {known}")
    with lock_folder(folder) as lock:
        lock.folder.delete_file(POINTS_FILE)
    folder.delete()
