"""Points that are means of annotated points, from a file of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError

Groups = Mapping[str, Sequence[int]]
"""Name of a point -> the annotated points whose mean it is."""


def read_groups(path: str, dataset: Dataset) -> Groups:
    """Return the groups of a YAML file, as indices of a dataset's annotated points.

    Raises:
        ConfigError: The file cannot be read, or is not as `parse_groups` wants it.
    """
    try:
        plain = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--groups {path}: cannot be read as YAML ({reason}); see kplm bench labels --help") from None
    count = int(dataset.manifest["landmarks"])
    names = dataset.meta.get("landmark_names") or [str(point) for point in range(count)]
    return parse_groups(plain, names, f"--groups {path}")


def parse_groups(plain: object, names: Sequence[str], source: str) -> dict[str, list[int]]:
    """Return groups of annotated points from `{name: [names of points]}`, in which `*` stands for any text.

    Raises:
        ConfigError: It is no such mapping, or a name fits no point.
    """
    if not isinstance(plain, dict) or not plain:
        raise ConfigError(f"{source}: must map names of points to lists of annotated points, as `nose: [nose_3]`")
    groups = {}
    for name, members in plain.items():
        patterns = [members] if isinstance(members, str) else members
        if not isinstance(patterns, list) or not patterns or not all(isinstance(one, str) for one in patterns):
            raise ConfigError(f"{source}: {name}: {members!r} must be a list of names of annotated points")
        for pattern in patterns:
            if not any(fnmatchcase(known, pattern) for known in names):
                raise ConfigError(
                    f"{source}: {name}: no annotated point is called {pattern}; there are {', '.join(names[:12])} ..."
                )
        groups[str(name)] = [i for i, known in enumerate(names) if any(fnmatchcase(known, one) for one in patterns)]
    return groups
