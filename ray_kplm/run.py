"""A run directory: its steps, their manifests, and which results may be reused.

A step writes into a folder of its own and publishes `manifest.json` there last: a step with a manifest is finished. The
manifest holds the step's fingerprint, a hash of its name, of the configuration it reads and of the fingerprints of its inputs.
When a run is continued, a step whose fingerprint matches is skipped; a mismatch is an error that says what changed.

    <run>/config.yaml                     resolved configuration; beside it versions.json and number_format.json
    <run>/keypoints/                      generic keypoints
    <run>/rounds/000/{train,features,labels}/   the warm-up; 001, 002, ... the rounds
    <run>/stage2/                         the landmark detector
    <run>/visibility/                     what gives its landmarks their probabilities
    <run>/evaluation/                     predictions, metrics, pictures
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from ray_kplm.config import Config, from_dict
from ray_kplm.config_names import as_begun, to_current_names, to_stored_names
from ray_kplm.config_paths import with_dataset_at
from ray_kplm.errors import DamageError, RunError
from ray_kplm.number_format import AUTO_KEYS, UNRECORDED, resolve_auto
from ray_kplm.redaction import has_credentials, way_out, without_credentials
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import SEAL, check_seal, check_sealed_text, parsing, seal, seal_text
from ray_kplm.storage.integrity import CLAIM as CLAIM
from ray_kplm.storage.integrity import MANIFEST as MANIFEST
from ray_kplm.storage.integrity import CheckedFolder, Record, read_manifest

CONFIG = "config.yaml"
NUMBER_FORMAT = "number_format.json"
"""File with what `auto` precision, memory format and compilation are in a run: the driver that begins the run decides it."""
_LAST_SECTION = dataclasses.fields(Config)[-1].name
"""Of a configuration on storage: where it is missing, the file was cut."""
_REPORTED = (
    "ray-kplm",
    "torch",
    "ray",
    "faiss-cpu",
    "faiss-gpu",
    "faiss-gpu-cu12",
    "numpy",
    "pyarrow",
    "albumentations",
    "mlflow",
)


def fingerprint(name: str, reads: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the hash that identifies the result of a step.

    Args:
        name: what the step does.
        reads: the configuration that it reads.
        inputs: the fingerprints of its inputs.
    """
    text = json.dumps([name, dict(reads), dict(inputs)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Step:
    """A unit of work in a run: where it writes, and what its result depends on."""

    folder: CheckedFolder
    name: str
    reads: Mapping[str, Any]
    inputs: Mapping[str, str]
    remedy: str = "Set run= to a new folder (`kplm fork OLD NEW` keeps what still fits), or restore the value"
    """The way out in the error about a result of another configuration."""

    @property
    def fingerprint(self) -> str:
        """The hash that identifies the result."""
        return fingerprint(self.name, self.reads, self.inputs)

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of the finished step, None if it is not finished. Changes nothing.

        Raises:
            RunError: the folder holds a result, or work in progress, of another configuration or of other inputs.
            DamageError: the manifest or the claim is damaged.
        """
        for name, state in ((MANIFEST, "finished"), (CLAIM, "begun")):
            if self.folder.is_file(name):
                stored = _read_identity(self.folder, name)
                if stored["fingerprint"] != self.fingerprint:
                    raise self._mismatch(stored, state)
                return stored if name == MANIFEST else None
        return None

    def state(self) -> str:
        """Return `done`, `begun`, `to do`, `damaged`, or `stale` for a result of another configuration or of other inputs."""
        try:
            if self.manifest() is not None:
                self.folder.check_sizes()
                return "done"
        except RunError:
            return "stale"
        except DamageError:
            return "damaged"
        return "begun" if self.folder.is_file(CLAIM) else "to do"

    def is_current(self) -> bool:
        """Return whether the step is finished and undamaged, and delete any other result: for results that are cheap."""
        try:
            if self.manifest() is None:
                return False
            self.folder.check()
            return True
        except (RunError, DamageError):
            self.folder.delete()
            return False

    def begin(self) -> None:
        """Write the claim, so that work in progress is continued by the same step only."""
        claim = {
            "step": self.name,
            "fingerprint": self.fingerprint,
            "reads": dict(self.reads),
            "inputs": dict(self.inputs),
            "began": time.time(),
            **self._owner(),
        }
        self.folder.write_json(CLAIM, seal(claim))

    def finish(self, *, outputs: Mapping[str, Record] | None = None, **facts: Any) -> dict[str, Any]:
        """Publish the result, which nothing reads before.

        Args:
            outputs: records of files beyond those that were written to the step's folder, by their path relative to it.
            facts: what else the manifest holds.

        Returns:
            The manifest. Its `seconds` are the time since the step was last begun.
        """
        began = (
            read_manifest(self.folder, CLAIM).get("began", time.time()) if self.folder.is_file(CLAIM) else time.time()
        )
        facts = {
            "step": self.name,
            "fingerprint": self.fingerprint,
            "reads": dict(self.reads),
            "inputs": dict(self.inputs),
            "seconds": round(time.time() - began, 1),
            **self._owner(),
            **facts,
        }
        manifest = self.folder.publish(facts, outputs=outputs)
        self.folder.delete_file(CLAIM)
        return manifest

    def _owner(self) -> dict[str, str]:
        """Return the token of the driver that writes the step, if it holds a lock (`locking`)."""
        guard = self.folder.guard
        return {"owner": guard.token} if guard else {}

    def _mismatch(self, stored: Mapping[str, Any], state: str) -> RunError:
        """Return the error for a stored manifest or claim of another fingerprint, which names what changed."""
        then, now = _flat(stored["reads"]), _flat(json.loads(json.dumps(dict(self.reads))))
        changes = [
            f"{key} was {then.get(key)!r}, is {now.get(key)!r}"
            for key in sorted({*then, *now})
            if then.get(key) != now.get(key)
        ]
        if stored["inputs"] != dict(self.inputs):
            changed = [key for key in self.inputs if stored["inputs"].get(key) != self.inputs[key]]
            changes.append(f"its input changed ({', '.join(changed) or 'another set of inputs'})")
        what = "; ".join(changes) or "another version of the step"
        return RunError(f"{self.folder}: {state} under another configuration: {what}. {self.remedy}")


def _read_identity(folder: CheckedFolder, name: str) -> dict[str, Any]:
    """Return a manifest or claim that says what its step is."""
    stored = read_manifest(folder, name)
    with folder.parsing(name):
        stored["fingerprint"], stored["reads"].items(), stored["inputs"].items()
    return stored


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


@dataclass(frozen=True)
class Run:
    """A run directory and its configuration."""

    folder: Folder
    config: Config

    @classmethod
    def start(cls, config: Config) -> Run:
        """Return the run of `config.run`, new or to be continued. Writes nothing; `save` does.

        A run that was begun before a key existed goes on as it began, unless the configuration gives that key another value
        than its default (`config_names.ADDED_KEYS`).

        Raises:
            RunError: the folder holds something other than a run.
            DamageError: its configuration is damaged.
        """
        if not config.run:
            raise RunError("run = '': name the run directory, for example run=runs/faces")
        folder = Folder.at(config.run)
        content = [name for name in (*folder.names(), *folder.folders()) if not name.startswith(".")]
        if content and not folder.is_file(CONFIG) and not folder.is_file(NUMBER_FORMAT):
            raise RunError(f"{folder}: is not empty and no run directory; set run= to a new folder")
        stored = stored_config(folder)
        if stored is not None:
            config = from_dict(as_begun(config.to_dict(), stored, Config().flat()))
        return cls(folder, config)

    def save(self) -> Run:
        """Make the folder a run directory, and return this run.

        Writes the configuration, the library versions and, the first time, the number format.
        """
        tree = self.config.to_dict()
        stored = stored_config(self.folder)
        if stored is not None:
            tree = to_stored_names(tree, stored)
        self.folder.write_bytes(CONFIG, seal_text(yaml.safe_dump(tree, sort_keys=False)))
        self.folder.write_json("versions.json", versions())
        if not self.folder.is_file(NUMBER_FORMAT):
            compute = self.resolved.compute
            self.folder.write_json(NUMBER_FORMAT, seal({name: getattr(compute, name) for name in AUTO_KEYS}))
        self.folder.sync()
        return self

    @property
    def resolved(self) -> Config:
        """The configuration for the run's workers: with `auto` as it was resolved when the run was begun, and absolute paths.

        So it does not depend on the machine on which a run continues. In a run without a record, this process resolves it.
        Fingerprints are made of `config`, which keeps `auto`.
        """
        compute = self.config.compute
        if record := self.number_format():
            compute = replace(compute, **{name: record[name] for name in AUTO_KEYS if getattr(compute, name) == "auto"})
        extra = self.config.augment.extra
        if extra and "://" not in extra:  # a worker's process may be in another folder
            extra = Folder.at(extra).path
        return replace(
            self.config,
            compute=resolve_auto(compute, gpu=compute.gpus_per_worker > 0),
            augment=replace(self.config.augment, extra=extra),
        )

    def number_format(self) -> dict[str, Any]:
        """Return what `auto` precision, memory format and compilation are in the run, empty if that is not recorded."""
        return stored_number_format(self.folder)

    @classmethod
    def open(cls, uri: str) -> Run:
        """Open an existing run.

        A dataset that was moved along is found. Credentials that the configuration of an old run holds are left out, and a line
        says so.

        Raises:
            RunError: there is none.
            DamageError: its configuration is damaged.
        """
        folder = Folder.at(uri)
        stored = stored_config(folder)
        if stored is None:
            raise RunError(f"{folder}: no run directory (no config.yaml in it); `kplm train` makes one")
        tree = to_current_names(stored)
        if folder.is_local:
            tree = with_dataset_at(folder.path, tree)
        return cls(folder, from_dict(_without_credentials(tree, folder)))

    def unit(self, path: str) -> CheckedFolder:
        """Return the folder of a step by its path, whose files are checked when they are read."""
        folder = self.folder
        for piece in path.split("/"):
            folder /= piece
        return CheckedFolder.of(folder, self._remedy(path))

    def _remedy(self, path: str) -> str:
        """Return how a damaged step is made again."""
        here = "" if Folder.at(self.config.run or "").path == self.folder.path else f" run={self.folder}"
        again = (
            "the command that wrote it"
            if path.startswith("evaluation")
            else f"`kplm train {self.folder}/{CONFIG}{here}`"
        )
        return f"`kplm verify {self.folder} --repair` removes what is damaged of {path}, and {again} makes it again"

    def step(self, path: str, name: str, reads: Mapping[str, Any], inputs: Mapping[str, str]) -> Step:
        """Return the step that writes to `<run>/<path>`; see `fingerprint` for the other arguments."""
        return Step(self.unit(path), name, json.loads(json.dumps(dict(reads))), dict(inputs))

    def manifest(self, path: str) -> dict[str, Any] | None:
        """Return the manifest of a step by its path, None if it is not finished. Raises DamageError if it is damaged."""
        folder = self.unit(path)
        return _read_identity(folder, MANIFEST) if folder.is_file(MANIFEST) else None

    def finished(self, path: str) -> dict[str, Any]:
        """Return the manifest of a step by its path. Raises RunError if it is not finished."""
        manifest = self.manifest(path)
        if manifest is None:
            raise RunError(
                f"{self.folder}: {path} is not finished; run `kplm train` with this run directory again to continue"
            )
        return manifest

    def rounds(self) -> list[int]:
        """Return the numbers of the rounds whose pseudo-labels are published, in order; 0 is the warm-up."""
        numbers = [int(name) for name in (self.folder / "rounds").folders() if name.isdigit()]
        return [number for number in numbers if self.manifest(f"{round_path(number)}/labels")]


def stored_config(folder: Folder) -> dict[str, Any] | None:
    """Return the configuration that a run's folder holds, under the names of its time; None if it holds none.

    Raises:
        DamageError: it is not what was written, or not all of it.
    """
    if not folder.is_file(CONFIG):
        return None
    with parsing(f"{folder}/{CONFIG}", "remove it, and `kplm train` with the run's configuration writes it again"):
        content = folder.read_bytes(CONFIG)
        check_sealed_text(content)
        tree = yaml.safe_load(content)
        if not isinstance(tree, dict) or not isinstance(tree.get(_LAST_SECTION), dict):
            raise ValueError(f"its last section, {_LAST_SECTION}, is missing")
        if not content.endswith(b"\n"):
            raise ValueError("its last line does not end")
    return tree


def stored_number_format(folder: Folder) -> dict[str, Any]:
    """Return what `auto` precision, memory format and compilation are in a run's folder, empty if that is not recorded.

    Raises:
        DamageError: it is not what was written.
    """
    if not folder.is_file(NUMBER_FORMAT):
        return {}
    with parsing(f"{folder}/{NUMBER_FORMAT}", "remove it, and `kplm train` with this run writes it again"):
        record = folder.read_object(NUMBER_FORMAT)
        check_seal(record)
        if not record.keys() <= {*AUTO_KEYS, SEAL}:  # the name of the seal may be damaged, too
            raise ValueError(f"its keys are {', '.join(sorted(record))}")
        return {name: (UNRECORDED | record)[name] for name in AUTO_KEYS}


def _without_credentials(tree: Any, folder: Folder) -> Any:
    """Return a run's configuration without the credentials in its URIs."""
    if isinstance(tree, dict):
        return {key: _without_credentials(value, folder) for key, value in tree.items()}
    if not isinstance(tree, str) or not has_credentials(tree):
        return tree
    uri = without_credentials(tree)
    print(f"kplm: {folder}/config.yaml: {uri} {way_out(uri)}; remove them from the file", file=sys.stderr, flush=True)
    return uri


def round_path(number: int) -> str:
    """Return the path of a round in the run directory, for example `rounds/003`."""
    return f"rounds/{number:03d}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a result depends on."""
    installed = {"python": platform.python_version()}
    for name in _REPORTED:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
