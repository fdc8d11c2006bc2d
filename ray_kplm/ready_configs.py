"""The configurations that come with the package (`ray_kplm/configs`), found by name.

In a checkout `jobs/configs` is a link to them; where git makes no links, as on some Windows machines, names work all the same.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).with_name("configs")
"""A file each; its name without `.yaml` is the configuration's, its first line is a comment that says what it is for."""


def names() -> list[str]:
    """Return the names of all ready configurations, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """Return the file of the ready configuration of this name."""
    return FOLDER / f"{name}.yaml"


def summary(name: str) -> str:
    """Return the first comment line of a ready configuration, without its mark."""
    first, *_ = path_of(name).read_text(encoding="utf-8").splitlines()
    return first.removeprefix("#").strip()


def find(name: str | os.PathLike[str]) -> Path:
    """Return the path that is meant by `name`: a file where there is one, else the ready configuration of this name.

    A folder of the name (a run, a dataset) does not hide the configuration. What is neither is returned as it is.
    """
    path = Path(name)
    is_file = path.exists() and not path.is_dir()
    return path if is_file or str(name) not in names() else path_of(str(name))


def near(name: str | os.PathLike[str]) -> list[str]:
    """Return the ready configurations whose names are close to a mistyped name or path, the closest first."""
    return difflib.get_close_matches(Path(name).stem, names(), n=3)
