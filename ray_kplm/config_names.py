"""Renamed configuration keys. Errors name the new key; runs and fingerprints under the old keys stay valid."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

RENAMED_KEYS = {"clustering.redos": "clustering.n_init", "compute.linear_rule": "compute.scale_lr"}
"""Old path -> new path, in the same section."""
_MIRROR = "method.mirror (true with 'pairs': partners; false: none)"
REMOVED_KEYS = {"method.flip": _MIRROR, "method.flip_map": _MIRROR}
"""Old path -> what takes its place."""
RENAMED_VALUES = {"keypoints.detector": {"truth_mix": "noisy_gt"}}
"""Path -> old value -> new value."""


def to_current_names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration (a plain tree) with today's names in place of old ones."""
    current: dict[str, Any] = copy.deepcopy(dict(tree))
    for old, new in RENAMED_KEYS.items():
        section, _, name = old.partition(".")
        if name in (current.get(section) or {}):
            current[section][new.partition(".")[2]] = current[section].pop(name)
    for path, values in RENAMED_VALUES.items():
        section, _, name = path.partition(".")
        if name in (current.get(section) or {}):
            current[section][name] = values.get(current[section][name], current[section][name])
    method = current.get("method") or {}
    if "flip" in method:
        method.pop("flip_map", None)
        method["mirror"] = "partners" if method.pop("flip") else "none"
    return current


def as_recorded(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section's values under the names that they had first.

    Fingerprints are made of these, so that a run that was begun under the old names continues under the new ones.
    """
    old_keys = {new: old.partition(".")[2] for old, new in RENAMED_KEYS.items()}
    original = {}
    for name, value in values.items():
        path = f"{section}.{name}"
        old_values = {new: old for old, new in RENAMED_VALUES.get(path, {}).items()}
        original[old_keys.get(path, name)] = old_values.get(value, value) if old_values else value
    return original


def mirror_as_recorded(mirror: str) -> dict[str, Any]:
    """Return `method.mirror` as fingerprints hold it: for `partners` and `none` the option that stood for them first."""
    return {"flip": mirror == "partners"} if mirror in ("partners", "none") else {"mirror": mirror}


def drop_static_as_recorded(drop_static: str) -> str | bool:
    """Return `method.drop_static` as fingerprints hold it: for `yes` and `no` the booleans that it had first."""
    return {"yes": True, "no": False}.get(drop_static, drop_static)
