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
_BEFORE: dict[str, Any] = {"detection.inside_box": False, "augment.paste": 0.0}
"""Path -> what runs did before the key existed, where it is not the default."""
ADDED_KEYS = ("method.mirror", *_BEFORE)
"""Keys whose defaults are not what runs did before these keys existed."""
_DROP_STATIC = {True: "yes", False: "no"}
"""The values of `method.drop_static` before it could be `auto`, and today's."""


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
    for path, value in _BEFORE.items():
        section, _, name = path.partition(".")
        if section in current:
            current[section].setdefault(name, value)
    return current


def as_begun(tree: Mapping[str, Any], stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration for a run that is continued: keys that it leaves at new defaults are as the run began.

    Args:
        tree: the configuration, a plain tree.
        stored: the run's stored configuration. Only ADDED_KEYS that it lacks are changed, and a `method.drop_static` that it
            has as a boolean.
        defaults: the default of each path.
    """
    begun, known = copy.deepcopy(dict(tree)), to_current_names(stored)
    for path in ADDED_KEYS:
        section, _, name = path.partition(".")
        added = name in known.get(section, {}) and name not in stored[section]
        if added and begun[section][name] == defaults[path]:
            begun[section][name] = known[section][name]
    dropped = stored.get("method", {}).get("drop_static")
    if isinstance(dropped, bool) and begun["method"]["drop_static"] == defaults["method.drop_static"]:
        begun["method"]["drop_static"] = _DROP_STATIC[dropped]
    return begun


def to_stored_names(tree: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in the form of the run's stored one: without the ADDED_KEYS that that one lacks, where possible.

    The reverse of `as_begun`: a run that was begun without these keys is known by its stored configuration.
    """
    written: dict[str, Any] = copy.deepcopy(dict(tree))
    method = written["method"]
    if "flip" in stored.get("method", {}) and method["mirror"] in ("partners", "none"):
        method |= {"flip": method.pop("mirror") == "partners", "flip_map": "pairs"}
    if isinstance(stored.get("method", {}).get("drop_static"), bool):
        method["drop_static"] = drop_static_as_recorded(method["drop_static"])
    for path, value in _BEFORE.items():
        section, _, name = path.partition(".")
        if name not in stored.get(section, {name: None}) and written[section][name] == value:
            del written[section][name]
    return written


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


def detection_as_recorded(detection: Mapping[str, Any]) -> dict[str, Any]:
    """Return `detection` as fingerprints hold it: runs that were begun without `inside_box` used no boxes."""
    return {name: value for name, value in detection.items() if name != "inside_box" or value}


def augment_as_recorded(augment: Mapping[str, Any]) -> dict[str, Any]:
    """Return `augment` as fingerprints hold it: without the options of what is off, as before there were any.

    Args:
        augment: The section; `extra` is the hash of the file's content, or empty.
    """
    off = {"paste", "paste_shift"} if not augment["paste"] else set()
    return {name: value for name, value in augment.items() if name not in off and (name != "extra" or value)}


def mirror_as_recorded(mirror: str) -> dict[str, Any]:
    """Return `method.mirror` as fingerprints hold it: for `partners` and `none` the option that stood for them first."""
    return {"flip": mirror == "partners"} if mirror in ("partners", "none") else {"mirror": mirror}


def drop_static_as_recorded(drop_static: str) -> str | bool:
    """Return `method.drop_static` as fingerprints hold it: for `yes` and `no` the booleans that it had first."""
    return {text: value for value, text in _DROP_STATIC.items()}.get(drop_static, drop_static)
