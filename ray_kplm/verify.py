"""Verification of all files of a run or of a dataset, and the removal of what is damaged: `kplm verify`."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ray_kplm.errors import DamageError, RunError
from ray_kplm.locking import lock_folder
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import CONFIG, NUMBER_FORMAT, stored_config, stored_number_format
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import SEAL, check_seal
from ray_kplm.storage.file_records import unit_of
from ray_kplm.storage.integrity import CLAIM, MANIFEST, OUTPUTS, CheckedFolder, difference, read_manifest

DAMAGED, LOST, UNRECORDED = "damaged", "lost", "not recorded"
_DATASET = "dataset.json"
_EVALUATION, _POINTS, _EDITED = "evaluation", "points", "edited"
"""Folders of a run that no step makes: of the second, see `points.stored`."""


@dataclass(frozen=True)
class Finding:
    """A file that is not as it was written, or of which that is not known.

    Attributes:
        path: relative to the verified folder; `*` for all files of a folder.
        state: `DAMAGED`, `LOST` or `UNRECORDED`: written by an older version, which kept no hashes.
        reason: why.
    """

    path: str
    state: str
    reason: str


@dataclass
class Verification:
    """What became of a verification.

    Attributes:
        folder: that was verified.
        kind: `run`, `dataset`, or what else the manifest says.
        files: number of files that are as they were written.
        size: of these, bytes.
        findings: all others.
        repaired: whether damaged files were removed.
    """

    folder: str
    kind: str
    files: int = 0
    size: int = 0
    findings: list[Finding] = field(default_factory=list)
    repaired: bool = False

    @property
    def faults(self) -> list[Finding]:
        """The files that are damaged or lost."""
        return [finding for finding in self.findings if finding.state != UNRECORDED]

    def commands(self) -> list[str]:
        """Return the commands after which no file is damaged or lost, in their order."""
        if not self.faults:
            return []
        repair = [] if self.repaired else [f"kplm verify {self.folder} --repair"]
        if self.kind == "dataset":
            return [*repair, f"kplm ingest SOURCE {self.folder}   # the source and the options that it was made of"]
        if self.kind != "run":
            return [*repair, "the command that wrote the folder"]
        paths = [finding.path for finding in self.faults]
        made = [path for path in paths if path.startswith((f"{_EVALUATION}/", f"{_POINTS}/"))]
        steps = [path for path in paths if path not in made]
        config = "CONFIG dataset=DIR" if CONFIG in paths else f"{self.folder}/{CONFIG}"
        train = [f"kplm train {config} run={self.folder}"] if steps else []
        evaluate = [f"kplm evaluate {self.folder}"] if any(path.startswith(f"{_EVALUATION}/") for path in made) else []
        return [*repair, *train, *evaluate, *self._points_again(made)]

    def _points_again(self, paths: list[str]) -> list[str]:
        """Return the commands that make damaged sets of points again."""
        names = sorted({path.split("/")[1] for path in paths if path.startswith(f"{_POINTS}/")})
        return [
            f"kplm edit {self.folder} FILE   # one of {self.folder}/{_POINTS}/{name}/versions"
            if name == _EDITED
            else f"kplm adapt {self.folder} LABELS --name {name}   # the labels that it was made of"
            for name in names
        ]


def verify(folder: Folder, *, repair: bool = False, progress: ProgressCallback = ignore_progress) -> Verification:
    """Compare all files of a run, of a dataset or of another folder with a manifest with what was written.

    Args:
        folder: of the run or of the dataset.
        repair: whether to remove what is damaged, and to mark its steps as unfinished, so that the commands that made them
            make them again. What is whole is kept.
        progress: called after each file.

    Raises:
        RunError: the folder holds nothing that can be verified, or a driver works on it.
    """
    names = folder.walk()
    units = sorted({unit for name in names if (unit := unit_of(name)) is not None})
    if not units and CONFIG not in names:
        raise RunError(f"{folder}: neither a run nor a dataset (no {CONFIG} and no {MANIFEST} in it)")
    found = Verification(str(folder), "run" if CONFIG in names or NUMBER_FORMAT in names else "")
    state = _Progress(progress, len(names))
    damage: dict[str, set[str]] = {}
    for path in units:
        damage[path] = set(_verify_unit(_unit(folder, path), path, found, state))
    lone = list(_verify_others(folder, names, units, found))
    if repair and found.faults:
        with lock_folder(folder) as lock:
            _repair(lock.folder, damage, lone)
        found.repaired = True
    progress(1.0, f"{found.files} files are as they were written")
    return found


@dataclass
class _Progress:
    """Counts files."""

    callback: ProgressCallback
    total: int
    done: int = 0

    def step(self, name: str) -> None:
        """Note that a file is verified."""
        self.done += 1
        self.callback(min(self.done / max(self.total, 1), 0.99), name)


def _unit(folder: Folder, path: str) -> CheckedFolder:
    for piece in path.split("/") if path else ():
        folder /= piece
    return CheckedFolder.of(folder, "")


def _verify_unit(unit: CheckedFolder, path: str, found: Verification, state: _Progress) -> Iterator[str]:
    """Yield the names of the files of a unit that are damaged or lost, relative to it."""
    name = next((name for name in (MANIFEST, CLAIM) if unit.is_file(name)), "")
    try:
        manifest = read_manifest(unit, name) if name else {}
        records = manifest.get(OUTPUTS) if name == MANIFEST else unit.written()
        records = None if records is None else {key: dict(record) for key, record in records.items()}
    except (DamageError, AttributeError, TypeError, ValueError) as error:
        found.findings.append(Finding(posixpath.join(path, name), DAMAGED, _reason(error)))
        yield name
        return
    except FileNotFoundError:  # a step that ended meanwhile
        return
    if not path and name == MANIFEST:
        found.kind = str(manifest.get("kind") or found.kind or "predictions")
    if records is None:
        found.findings.append(Finding(posixpath.join(path, "*"), UNRECORDED, "made by a version that kept no hashes"))
        return
    for key, record in records.items():
        where, base = unit.place(key)
        state.step(posixpath.normpath(posixpath.join(path, key)))
        try:
            wrong, how = difference(record, where.unchecked.read_bytes(base)), DAMAGED
        except FileNotFoundError:
            wrong, how = ("it is not there", LOST) if name == MANIFEST else ("", "")
        if wrong:
            found.findings.append(Finding(posixpath.normpath(posixpath.join(path, key)), how, wrong))
            yield key
        else:
            found.files, found.size = found.files + 1, found.size + int(record["size"])


def _verify_others(folder: Folder, names: list[str], units: list[str], found: Verification) -> Iterator[str]:
    """Yield the damaged files that belong to no step: those of the run as a whole, and results that are written anew."""
    for name, read in ((CONFIG, stored_config), (NUMBER_FORMAT, stored_number_format)):
        if name in names:
            try:
                read(folder)
                found.files, found.size = found.files + 1, found.size + folder.size(name)
            except DamageError as error:
                found.findings.append(Finding(name, DAMAGED, _reason(error)))
                yield name
    if found.kind == "run" and CONFIG not in names:
        found.findings.append(Finding(CONFIG, LOST, "it is not there"))
    of_units = {posixpath.join(unit, key) for unit in units for key in (MANIFEST, CLAIM)}
    for name in names:
        loose = posixpath.dirname(name) not in units and not name.startswith(".") and "/." not in name
        if name.endswith(".json") and loose and name not in of_units and name != NUMBER_FORMAT:
            try:
                value = json.loads(folder.read_bytes(name))
            except FileNotFoundError:
                continue
            except ValueError as error:
                found.findings.append(Finding(name, DAMAGED, f"no JSON: {error}"))
                yield name
                continue
            if not isinstance(value, dict) or SEAL not in value:
                continue
            try:
                check_seal(value)
                found.files, found.size = found.files + 1, found.size + folder.size(name)
            except ValueError as error:
                found.findings.append(Finding(name, DAMAGED, str(error)))
                yield name


def _repair(folder: Folder, damage: dict[str, set[str]], lone: list[str]) -> None:
    """Remove damaged files, the manifests of their units last."""
    for name in lone:
        folder.delete_file(name)
    for path, names in damage.items():
        unit = _unit(folder, path)
        if names & {MANIFEST, CLAIM}:
            _forget(unit.unchecked)
        elif names and unit.is_file(MANIFEST):
            manifest: dict[str, Any] = read_manifest(unit)
            unit.unpublish(names)
            if _DATASET in names:  # the claim on the folder, with which the ingest continues
                unit.write_json(_DATASET, {"fingerprint": manifest["fingerprint"]})
        else:
            for name in names:
                where, base = unit.place(name)
                where.delete_file(base)


def _forget(folder: Folder) -> None:
    """Remove the files of a unit whose manifest is damaged: of a step all of them, as none can be checked.

    Those of a dataset stay: `kplm ingest` reads all of them when it continues.
    """
    keep = folder.is_file(_DATASET)
    for name in folder.names():
        if not keep and name != MANIFEST:
            folder.delete_file(name)
    folder.delete_file(MANIFEST)


def _reason(error: Exception) -> str:
    """Return what an error says is wrong, without path and way out."""
    text = str(error)
    return text[text.find("(") + 1 : text.rfind(")")] if "(" in text and ")" in text else text
