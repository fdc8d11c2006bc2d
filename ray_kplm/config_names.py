"""Names of the configuration that have changed: errors say the new one, and what is on storage stays readable."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

KEYS = {"clustering.redos": "clustering.n_init", "compute.linear_rule": "compute.scale_lr"}
"""Old path -> new path, within one section."""
VALUES = {"keypoints.detector": {"truth_mix": "noisy_gt"}}
"""Path -> old value -> new value."""


def modernised(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration, a plain tree, under today's names."""
    found: dict[str, Any] = copy.deepcopy(dict(tree))
    for old, new in KEYS.items():
        section, _, name = old.partition(".")
        if name in (found.get(section) or {}):
            found[section][new.partition(".")[2]] = found[section].pop(name)
    for path, values in VALUES.items():
        section, _, name = path.partition(".")
        if name in (found.get(section) or {}):
            found[section][name] = values.get(found[section][name], found[section][name])
    return found


def as_recorded(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section's values under the names they had first: fingerprints are made of these, so that a run which was begun
    under the old names goes on under the new ones."""
    old_names = {new: old.partition(".")[2] for old, new in KEYS.items()}
    found = {}
    for name, value in values.items():
        old_values = {new: old for old, new in VALUES.get(f"{section}.{name}", {}).items()}
        found[old_names.get(f"{section}.{name}", name)] = old_values.get(value, value) if old_values else value
    return found
