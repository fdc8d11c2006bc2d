"""`config.json` of a folder that holds a detector to share: what the detector is, without paths and without PyTorch.

<folder>/model.safetensors   the weights of the network, of the visibility and of the facing
<folder>/config.json         all else: configuration, channels, points, fingerprint, the hash of the weights; written last
<folder>/README.md           the model card, and its pictures beside it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ray_kplm.config import Config, from_dict
from ray_kplm.config_names import to_current_names
from ray_kplm.errors import ConfigError, DamageError, DataError, RunError
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import check_seal, parsing

MODEL_CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FORMAT = "ray-kplm landmark detector"
FORMAT_VERSION = 2
"""Of what is written if there is a set of points, and 1 otherwise. Older ones are read, newer ones are refused."""
WAY_OUT = "download it again, or write the folder again by `kplm push RUN --folder DIR`"
_COMPUTE = ("precision", "channels_last", "batch_images")
"""Keys of `compute` that belong to a detector; the others belong to a machine."""
_GIT_LFS = b"version https://git-lfs"


def is_pretrained(folder: Folder) -> bool:
    """Return whether a folder holds a detector to share, or a part of one, and neither a run nor an exported detector."""
    if folder.is_file("config.yaml") or folder.is_file("channels.json"):
        return False
    return folder.is_file(MODEL_CONFIG) or folder.is_file(WEIGHTS)


def open_detector(uri: str) -> Run:
    """Open a run directory, an exported detector, or a folder that holds a detector to share; only its configuration is read.

    Raises:
        RunError: there is none.
        DataError: `config.json` is that of another kind of model.
        DamageError: the configuration is damaged.
    """
    folder = Folder.at(uri)
    return Run(folder, config_of(read_description(folder), folder)) if is_pretrained(folder) else Run.open(uri)


def read_description(folder: Folder) -> dict[str, Any]:
    """Return the content of `config.json`.

    Raises:
        RunError: a newer version of this package wrote it.
        DataError: it is that of another kind of model.
        DamageError: it is missing or damaged.
    """
    if not folder.is_file(MODEL_CONFIG):
        raise DamageError(f"{folder}/{MODEL_CONFIG}: is missing, and {WEIGHTS} alone is no detector; {WAY_OUT}")
    with parsing(f"{folder}/{MODEL_CONFIG}", WAY_OUT):
        plain = folder.read_object(MODEL_CONFIG)
        if plain.get("format") != FORMAT:
            kind = plain.get("model_type") or plain.get("library_name") or "another library"
            raise DataError(
                f"{folder}/{MODEL_CONFIG}: is of a model of {str(kind)[:40]}, and no {FORMAT}; give a folder or a name that "
                "`kplm push` wrote"
            )
        if int(plain["format_version"]) > FORMAT_VERSION:
            raise RunError(
                f"{folder}/{MODEL_CONFIG}: has format {plain['format_version']}, and this version of ray-kplm reads "
                f"{FORMAT_VERSION} and older ones; pip install --upgrade ray-kplm"
            )
        check_seal(plain)
        return plain


def pretrained_fingerprint(plain: Mapping[str, Any]) -> str:
    """Return what tells the detector of a `config.json` from others: the weights, and the points if these are no landmarks."""
    weights = str(plain["weights"]["sha256"])
    if plain.get("points") is None:
        return weights[:16]
    return hashlib.sha256(json.dumps([weights, plain["points"]], sort_keys=True).encode()).hexdigest()[:16]


def config_of(plain: Mapping[str, Any], folder: Folder) -> Config:
    """Return the configuration in a `config.json`; keys that it lacks have their defaults."""
    with parsing(f"{folder}/{MODEL_CONFIG}", WAY_OUT):
        return from_dict(to_current_names(plain["config"]))


def portable_config(config: Config, *, faces: bool) -> dict[str, Any]:
    """Return the part of a run's configuration that its detector needs, which holds no path.

    Args:
        config: of the run.
        faces: whether the detector looks which way objects face, by `features`.

    Raises:
        ConfigError: the features are those of a file of this machine.
    """
    tree = config.to_dict()
    kept = {name: tree[name] for name in ("network", "stage2")}
    kept["compute"] = {name: tree["compute"][name] for name in _COMPUTE}
    if faces:
        name, weights = config.features, config.keypoints.weights
        if Folder.at(name).exists() or (name == "aliked" and weights):
            raise ConfigError(
                f"features = {name!r}: this detector looks which way objects face by a model in a file of this machine, which "
                "is no part of what is shared; train with features=hog or a name on the hub"
            )
        kept["features"] = name
    return kept


def weights_record(content: bytes) -> dict[str, Any]:
    """Return what `config.json` says of the file of the weights."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read_weights_file(folder: Folder, plain: Mapping[str, Any]) -> bytes:
    """Return the file of the weights, which is the one that `config.json` was written with.

    Raises:
        DamageError: it is missing, damaged, or of another detector.
    """
    where = f"{folder}/{WEIGHTS}"
    if not folder.is_file(WEIGHTS):
        raise DamageError(f"{where}: is missing; {WAY_OUT}")
    content = folder.read_bytes(WEIGHTS)
    with parsing(f"{folder}/{MODEL_CONFIG}", WAY_OUT):
        expected = {name: plain["weights"][name] for name in ("size", "sha256")}
    if weights_record(content) != expected:
        if content.startswith(_GIT_LFS):
            raise DamageError(f"{where}: is a pointer of Git LFS and not the file; git lfs pull brings it")
        raise DamageError(f"{where}: is damaged, or of another detector than {MODEL_CONFIG}; {WAY_OUT}")
    return content
