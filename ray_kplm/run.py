"""A run directory: steps, their manifests, and what may be reused.

A step writes into a folder of its own and publishes `manifest.json` there last. The manifest's presence is what "done" means;
it holds the step's fingerprint, a hash of what the step does, of the configuration it reads and of the fingerprints of its
inputs. Run again: a step whose manifest matches is skipped, a mismatch is an error that says what changed.

    <run>/config.yaml                     resolved configuration; beside it versions.json and number_format.json
    <run>/keypoints/                      generic keypoints
    <run>/rounds/000/{train,features,labels}/   the warm-up; 001, 002, ... the rounds
    <run>/stage2/                         the landmark detector
    <run>/evaluation/                     predictions, metrics, pictures
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from ray_kplm.config import Config, from_dict
from ray_kplm.config_names import to_current_names
from ray_kplm.errors import RunError
from ray_kplm.number_format import DECIDED, decided
from ray_kplm.storage import Folder

MANIFEST = "manifest.json"
CLAIM = "claim.json"
NUMBER_FORMAT = "number_format.json"
"""What `auto` precision and memory format are in a run: decided when it is begun, by the driver."""
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
    """Hash of what a step does, the configuration it reads and its inputs' fingerprints."""
    text = json.dumps([name, dict(reads), dict(inputs)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Step:
    """A unit of work in a run: where it writes, and what makes its result reusable."""

    folder: Folder
    name: str
    reads: Mapping[str, Any]
    inputs: Mapping[str, str]
    remedy: str = "Set run= to a new folder (`kplm fork OLD NEW` keeps what still fits), or restore the value"
    """What to do about a result of another configuration."""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.name, self.reads, self.inputs)

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of the finished step, or None while there is work to do. Changes nothing.

        Raises RunError if the folder holds a result, or work begun, of another configuration or of other inputs.
        """
        for name, state in ((MANIFEST, "finished"), (CLAIM, "begun")):
            if self.folder.is_file(name):
                found: dict[str, Any] = self.folder.read_json(name)
                if found["fingerprint"] != self.fingerprint:
                    raise self._mismatch(found, state)
                return found if name == MANIFEST else None
        return None

    def is_current(self) -> bool:
        """Return whether the result is there. One of another configuration is deleted: for what is cheap to make again."""
        try:
            return self.manifest() is not None
        except RunError:
            self.folder.delete()
            return False

    def begin(self) -> None:
        """Note what is being made, so that work in progress is only ever continued by the same step."""
        claim = {
            "step": self.name,
            "fingerprint": self.fingerprint,
            "reads": dict(self.reads),
            "inputs": dict(self.inputs),
            "began": time.time(),
        }
        self.folder.write_json(CLAIM, claim)

    def finish(self, **facts: Any) -> dict[str, Any]:
        """Publish the step's result: nothing reads it before. `seconds` are those since the step was last begun."""
        began = self.folder.read_json(CLAIM)["began"] if self.folder.is_file(CLAIM) else time.time()
        manifest = {
            "step": self.name,
            "fingerprint": self.fingerprint,
            "reads": dict(self.reads),
            "inputs": dict(self.inputs),
            "seconds": round(time.time() - began, 1),
            **facts,
        }
        self.folder.write_json(MANIFEST, manifest)
        self.folder.delete_file(CLAIM)
        return manifest

    def _mismatch(self, found: Mapping[str, Any], state: str) -> RunError:
        then, now = _flat(found["reads"]), _flat(json.loads(json.dumps(dict(self.reads))))
        changes = [
            f"{key} was {then.get(key)!r}, is {now.get(key)!r}"
            for key in sorted({*then, *now})
            if then.get(key) != now.get(key)
        ]
        if found["inputs"] != dict(self.inputs):
            changed = [key for key in self.inputs if found["inputs"].get(key) != self.inputs[key]]
            changes.append(f"its input changed ({', '.join(changed) or 'another set of inputs'})")
        what = "; ".join(changes) or "another version of the step"
        return RunError(f"{self.folder}: {state} under another configuration: {what}. {self.remedy}")


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
    """An opened run directory and the configuration it was started with."""

    folder: Folder
    config: Config

    @classmethod
    def start(cls, config: Config) -> Run:
        """The run of `config.run`, new or to be continued. Writes nothing; `save` does.

        Raises RunError if the folder holds something else than a run.
        """
        if not config.run:
            raise RunError("run = '': name the run directory, for example run=runs/faces")
        folder = Folder.at(config.run)
        there = [name for name in (*folder.names(), *folder.folders()) if not name.startswith(".")]
        if there and not folder.is_file("config.yaml"):
            raise RunError(f"{folder}: is not empty and no run directory; set run= to a new folder")
        return cls(folder, config)

    def save(self) -> Run:
        """Write the configuration, the library versions and, the first time, the number format: from now on this is a run
        directory. Returns itself."""
        self.folder.write_bytes("config.yaml", yaml.safe_dump(self.config.to_dict(), sort_keys=False).encode())
        self.folder.write_json("versions.json", versions())
        if not self.folder.is_file(NUMBER_FORMAT):
            compute = self.resolved.compute
            self.folder.write_json(NUMBER_FORMAT, {name: getattr(compute, name) for name in DECIDED})
        return self

    @property
    def resolved(self) -> Config:
        """The configuration that the run's workers get: `auto` is what was decided when the run was begun, on whatever machine
        it goes on. In a run that has no record of it, this process decides.

        `config` says what was asked for, and fingerprints are made of that.
        """
        compute = self.config.compute
        if self.folder.is_file(NUMBER_FORMAT):
            record = self.folder.read_json(NUMBER_FORMAT)
            compute = replace(compute, **{name: record[name] for name in DECIDED if getattr(compute, name) == "auto"})
        return replace(self.config, compute=decided(compute, gpu=compute.gpus_per_worker > 0))

    @classmethod
    def open(cls, uri: str) -> Run:
        """Open an existing run to read it."""
        folder = Folder.at(uri)
        if not folder.is_file("config.yaml"):
            raise RunError(f"{folder}: no run directory (no config.yaml in it); `kplm train` makes one")
        return cls(folder, from_dict(to_current_names(yaml.safe_load(folder.read_bytes("config.yaml")))))

    def step(self, path: str, name: str, reads: Mapping[str, Any], inputs: Mapping[str, str]) -> Step:
        """The step that writes to `<run>/<path>`."""
        folder = self.folder
        for piece in path.split("/"):
            folder /= piece
        return Step(folder, name, json.loads(json.dumps(dict(reads))), dict(inputs))

    def manifest(self, path: str) -> dict[str, Any] | None:
        """The manifest of a finished step by its path, None if it is not finished."""
        name = f"{path}/{MANIFEST}"
        return self.folder.read_json(name) if self.folder.is_file(name) else None

    def finished(self, path: str) -> dict[str, Any]:
        """The manifest of a step by its path. Raises RunError if it is not finished."""
        manifest = self.manifest(path)
        if manifest is None:
            raise RunError(
                f"{self.folder}: {path} is not finished; run `kplm train` with this run directory again to continue"
            )
        return manifest

    def rounds(self) -> list[int]:
        """The rounds whose pseudo-labels are published, in order; 0 is the warm-up."""
        numbers = [int(name) for name in (self.folder / "rounds").folders() if name.isdigit()]
        return [number for number in numbers if self.manifest(f"{round_path(number)}/labels")]


def round_path(number: int) -> str:
    """`rounds/003`."""
    return f"rounds/{number:03d}"


def versions() -> dict[str, str]:
    """Python and the libraries a result depends on."""
    found = {"python": platform.python_version()}
    for name in _REPORTED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
