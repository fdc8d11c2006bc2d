"""The edited points of a run: applied from a file, shown, undone. `kplm edit`.

    <run>/points/edited/points.json           what holds now, and of which version it is; absent: the landmarks themselves
    <run>/points/edited/versions/0001.yaml    the files as they were given, in the order in which they were applied first

Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_kplm.errors import ConfigError, DataError
from ray_kplm.locking import lock_folder
from ray_kplm.points.edit import read_edit
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, POINTS_FILE, point_folder, read_point_set, write_point_set
from ray_kplm.report.text_table import NO_VALUE, align
from ray_kplm.run import Run
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

_CHANNELS = "channels.json"
"""`methods.channels.CHANNELS`, whose module imports PyTorch."""
_VERSIONS = "versions"


@dataclass(frozen=True)
class Applied:
    """The points that hold in a run.

    Attributes:
        points: The set; without an edit that of the landmarks themselves.
        version: Number of the file that they are from; 0: the landmarks themselves.
        notes: What the user is told of the file, a line each.
    """

    points: PointSet
    version: int
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> list[list[int]]:
        """The landmarks that each point is the mean of."""
        return [np.flatnonzero(row).tolist() for row in self.points.shares]

    @property
    def dropped(self) -> list[int]:
        """The landmarks that are in no point, ascending."""
        return np.flatnonzero((self.points.shares == 0).all(axis=0)).tolist()

    def figures(self) -> dict[str, Any]:
        """Return what `kplm edit --json` prints."""
        layout = self.points.layout
        rows = [
            {"name": name, "landmarks": group, "partner": None if partner == n else layout.names[partner]}
            for n, (name, group, partner) in enumerate(zip(layout.names, self.groups, layout.partners, strict=True))
        ]
        edges = [[layout.names[a], layout.names[b]] for a, b in layout.skeleton]
        facts = {"dropped": self.dropped, "landmarks": self.points.landmarks, "version": self.version}
        return {"points": rows, "edges": edges, **facts, "notes": list(self.notes)}

    def __str__(self) -> str:
        layout, figures = self.points.layout, self.figures()
        near: list[list[str]] = [[] for _ in layout.names]
        for a, b in layout.skeleton:
            near[a].append(layout.names[b])
            near[b].append(layout.names[a])
        rows = [
            [
                one["name"],
                " ".join(map(str, one["landmarks"])),
                one["partner"] or NO_VALUE,
                ", ".join(edges) or NO_VALUE,
            ]
            for one, edges in zip(figures["points"], near, strict=True)
        ]
        table = align([["point", "landmarks", "partner", "joined to"], *rows], left=range(4))
        count, edges = f"{len(layout)} of {self.points.landmarks} landmarks", f"{len(layout.skeleton)} edges"
        merged = f"{len(layout)} points of {self.points.landmarks - len(self.dropped)} landmarks"
        kept = count if all(len(group) == 1 for group in self.groups) else merged
        origin = f"version {self.version}" if self.version else "the landmarks themselves"
        dropped = f"dropped: {', '.join(map(str, self.dropped))}" if self.dropped else "none dropped"
        return "\n".join([*table, f"{kept}, {edges}, {origin}; {dropped}", *self.notes])


def flip_map_of(run: Run) -> list[int]:
    """Return the mirror partners of the landmarks of a finished run, (K,), or NONE. Raises RunError or DamageError."""
    run.finished("stage2")
    stage2 = run.unit("stage2")
    with stage2.parsing(_CHANNELS):
        return [int(k) for k in stage2.read_object(_CHANNELS)["flip_map"]]


def present(run: Run) -> Applied:
    """Return the points that hold in a finished run. Raises DamageError if they cannot be read."""
    folder = point_folder(run.folder, EDITED)
    points, flip_map = read_point_set(folder), flip_map_of(run)
    if points is None:
        mutual = [p if p != NONE and flip_map[p] == k else NONE for k, p in enumerate(flip_map)]
        groups = [[k] for k in range(len(flip_map))]
        return Applied(PointSet.of_groups(Layout.of("", mutual), groups, len(groups)), 0)
    if points.landmarks != len(flip_map):
        raise DataError(
            f"{folder}/{POINTS_FILE}: is of {points.landmarks} landmarks, and the run has {len(flip_map)}; `kplm edit RUN "
            "--reset` removes it"
        )
    return Applied(points, int(folder.read_object(POINTS_FILE).get("version", 0)))


def apply_file(run: Run, file: str) -> Applied:
    """Make the points of a file those of a run, and keep the file as a version.

    A file that is a version already adds none; that version holds again.

    Args:
        run: A finished run.
        file: Path or URI of the YAML.

    Raises:
        ConfigError: The file breaks a rule.
        DataError: There is no such file.
        RunError: The run is not finished, or another command edits its points.
    """
    at = Folder.at(file)
    if not at.parent.is_file(at.name):
        raise DataError(f"{file}: no such file; `kplm edit {run.folder} --suggest {file}` writes one to begin with")
    return _apply(run, at.parent.read_bytes(at.name), file)


def _apply(run: Run, content: bytes, file: str) -> Applied:
    edit = read_edit(content, file, flip_map_of(run))
    with lock_folder(point_folder(run.folder, EDITED)) as lock:
        number = _kept(lock.folder, content)
        write_point_set(lock.folder, edit.point_set(), version=number)
    unmentioned = ", ".join(map(str, edit.unmentioned))
    said = [f"not mentioned in {file}, so dropped: {unmentioned}"] if unmentioned else []
    return Applied(edit.point_set(), number, (*said, *edit.notes))


def undo(run: Run) -> Applied:
    """Return to the version before the one that holds; before the first one are the landmarks themselves.

    Raises:
        ConfigError: The landmarks themselves hold.
        RunError: The run is not finished, or another command edits its points.
    """
    now = present(run).version
    folder, numbers = point_folder(run.folder, EDITED), versions(run)
    if not now:
        again = (
            f"; `kplm edit {run.folder} {version_file(folder, numbers[-1])}` applies the last version"
            if numbers
            else ""
        )
        raise ConfigError(f"--undo: the landmarks of {run.folder} are as they were found{again or ', nothing to undo'}")
    earlier = [number for number in numbers if number < now]
    if not earlier:
        return reset(run)
    return _apply(run, _read_version(folder, earlier[-1]), version_file(folder, earlier[-1]))


def reset(run: Run) -> Applied:
    """Return to the landmarks themselves; the versions are kept."""
    with lock_folder(point_folder(run.folder, EDITED)) as lock:
        lock.folder.delete_file(POINTS_FILE)
    return present(run)


def versions(run: Run) -> list[int]:
    """Return the numbers of the versions that are kept, ascending."""
    return _numbers(point_folder(run.folder, EDITED))


def version_file(folder: Folder, number: int) -> str:
    """Return the path of a version in the folder of the edited points."""
    return f"{folder / _VERSIONS}/{number:04d}.yaml"


def version_rows(run: Run) -> list[dict[str, Any]]:
    """Return a dictionary for each version: `version`, `file`, `points`, `dropped`, and `holds`, whether it holds now."""
    now, flip_map, folder = present(run).version, flip_map_of(run), point_folder(run.folder, EDITED)
    rows = []
    for number in versions(run):
        file = version_file(folder, number)
        edit = read_edit(_read_version(folder, number), file, flip_map)
        dropped = Applied(edit.point_set(), number).dropped
        rows.append(
            {"version": number, "points": len(edit.groups), "dropped": dropped, "holds": number == now, "file": file}
        )
    return rows


def version_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the rows of `version_rows` as lines for the terminal."""
    cells = [
        [
            str(row["version"]),
            str(row["points"]),
            " ".join(map(str, row["dropped"])) or NO_VALUE,
            "holds now" if row["holds"] else "",
            row["file"],
        ]
        for row in rows
    ]
    return align([["version", "points", "dropped", "", "file"], *cells], left=(2, 3, 4))


def _kept(folder: Folder, content: bytes) -> int:
    """Return the number of the version that has this content, a new one if none has."""
    numbers = _numbers(folder)
    for number in numbers:
        if _read_version(folder, number) == content:
            return number
    number = max(numbers, default=0) + 1
    (folder / _VERSIONS).write_bytes(f"{number:04d}.yaml", content)
    return number


def _read_version(folder: Folder, number: int) -> bytes:
    return (folder / _VERSIONS).read_bytes(f"{number:04d}.yaml")


def _numbers(folder: Folder) -> list[int]:
    names = (folder / _VERSIONS).names(suffix=".yaml")
    return sorted(int(stem) for name in names if (stem := name.removesuffix(".yaml")).isdecimal())
