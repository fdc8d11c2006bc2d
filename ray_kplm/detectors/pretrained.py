"""A folder that holds a detector to share, see `pretrained_config`: written and read without pickles."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_kplm.correspondence.facing import FacingTemplate
from ray_kplm.detectors.pretrained_config import (
    FORMAT,
    FORMAT_VERSION,
    MODEL_CONFIG,
    WAY_OUT,
    WEIGHTS,
    portable_config,
    read_description,
    read_weights_file,
    weights_record,
)
from ray_kplm.extras import missing
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.facing import FacingRule
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.methods.visibility import OWN_FEATURES, VisibilityModel
from ray_kplm.points.point_set import PointSet
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import parsing, seal

_NETWORK, _VISIBILITY, _FACING = "network.", "visibility.", "facing."
"""Prefixes of the names of tensors."""
_VERSIONS = ("ray-kplm", "torch", "safetensors")


@dataclass(frozen=True, eq=False)
class PretrainedFactory(LandmarkPredictorFactory):
    """Builds the predictor of a folder that holds a detector to share; `network` is the folder."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the network, by name. Raises DamageError if they cannot be read."""
        return _part(_read_tensors(self.network, read_description(self.network)), _NETWORK)


def pretrained_predictor(run: Run) -> PretrainedFactory:
    """Return the detector in a folder that `open_detector` opened.

    Raises:
        ConfigError: the package safetensors is missing.
        DataError: the folder is of another kind of model.
        DamageError: a file is damaged or missing.
    """
    folder = run.folder
    plain = read_description(folder)
    tensors = _read_tensors(folder, plain)
    with parsing(f"{folder}/{WEIGHTS}", WAY_OUT):
        channels = Channels.from_dict(plain["channels"])
        visibility, facing = _arrays(tensors, _VISIBILITY), _arrays(tensors, _FACING)
        if len(channels) != plain["landmarks"] or not _part(tensors, _NETWORK):
            raise ValueError(f"it has not the {plain['landmarks']} landmarks of {MODEL_CONFIG}")
        model = VisibilityModel(visibility["weights"], visibility["offset"]) if visibility else None
        if model is not None and tuple(plain["visibility_features"]) != OWN_FEATURES:
            raise ValueError("its probabilities are of features that this version does not measure")
        rule = None
        if facing:
            template = FacingTemplate(facing["mean"], facing["direction"], float(facing["sharpness"]))
            rule = FacingRule(run.config, template, facing["box"])
    with parsing(f"{folder}/{MODEL_CONFIG}", WAY_OUT):
        points = None if plain.get("points") is None else PointSet.from_dict(plain["points"])
        if points is not None and points.landmarks != len(channels):
            raise ValueError(f"its points are made of {points.landmarks} landmarks, and it has {len(channels)}")
        skeleton = tuple((int(a), int(b)) for a, b in plain.get("skeleton", ()))
    return PretrainedFactory(
        run.config, folder, channels.flip_map, run.config.stage2.flip_at_test, rule, model, points, skeleton
    )


def write_pretrained(
    factory: LandmarkPredictorFactory, channels: Channels, folder: Folder, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write a detector to a folder: `model.safetensors`, then `config.json`.

    Args:
        factory: builds the predictor of the detector.
        channels: of the detector.
        folder: where to write.
        facts: what else `config.json` says: `fingerprint`, ...

    Returns:
        The content of `config.json`.

    Raises:
        ConfigError: the package safetensors is missing, or the detector depends on a file of this machine.
        DamageError: a file of the detector is damaged.
    """
    config = portable_config(factory.config, faces=factory.facing is not None)
    tensors = {f"{_NETWORK}{name}": value.contiguous() for name, value in factory.weights().items()}
    arrays: dict[str, Any] = {}
    if factory.visibility is not None:
        arrays |= {f"{_VISIBILITY}{name}": getattr(factory.visibility, name) for name in ("weights", "offset")}
    if factory.facing is not None:
        rule = factory.facing
        arrays |= {f"{_FACING}{name}": getattr(rule.template, name) for name in ("mean", "direction", "sharpness")}
        arrays[f"{_FACING}box"] = rule.box
    tensors |= {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    content = _safetensors().save(tensors, metadata={"format": "pt"})
    plain = seal(
        {
            "format": FORMAT,
            "format_version": 1 if factory.points is None else FORMAT_VERSION,
            "landmarks": len(channels),
            "channels": channels.to_dict(),
            "points": None if factory.points is None else factory.points.to_dict(),
            "skeleton": [list(edge) for edge in factory.layout.skeleton],
            "visibility_features": list(OWN_FEATURES) if factory.visibility is not None else None,
            "config": config,
            "weights": weights_record(content),
            "versions": {name: version for name in _VERSIONS if (version := _version(name))},
            **facts,
        }
    )
    folder.delete_file(MODEL_CONFIG)  # until it is there again, the folder is not whole
    folder.write_bytes(WEIGHTS, content)
    folder.write_json(MODEL_CONFIG, plain)
    return plain


def _read_tensors(folder: Folder, plain: dict[str, Any]) -> dict[str, Tensor]:
    content, module = read_weights_file(folder, plain), _safetensors()
    with parsing(f"{folder}/{WEIGHTS}", WAY_OUT):
        try:
            tensors: dict[str, Tensor] = module.load(content)
        except Exception as error:  # SafetensorError is none that `parsing` knows
            raise ValueError(f"no safetensors: {error}") from None
    return tensors


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _arrays(tensors: dict[str, Tensor], prefix: str) -> dict[str, NDArray[Any]]:
    return {name: value.numpy() for name, value in _part(tensors, prefix).items()}


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError:
        raise missing("safetensors") from None
    return safetensors.torch


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # the package runs from a checkout
        return None
