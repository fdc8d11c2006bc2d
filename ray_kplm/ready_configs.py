"""The ready configurations that are part of the package (`ray_kplm/configs`), found by name.

In a checkout `jobs/configs` is a symbolic link to them. Names do not need the link, which git does not create on some Windows
machines.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).with_name("configs")
"""One file for each, `<name>.yaml`, whose first line is a comment about its purpose."""


def names() -> list[str]:
    """Return the names of all ready configurations, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """Return the file of the ready configuration of this name."""
    return FOLDER / f"{name}.yaml"


def summary(name: str) -> str:
    """Return the first comment line of a ready configuration, without `#`."""
    first, *_ = path_of(name).read_text(encoding="utf-8").splitlines()
    return first.removeprefix("#").strip()


def find(name: str | os.PathLike[str]) -> Path:
    """Return the file that `name` refers to: an existing file, else the ready configuration of this name, else `name` itself.

    A folder of this name (a run, a dataset) does not hide the ready configuration.
    """
    path = Path(name)
    is_file = path.exists() and not path.is_dir()
    return path if is_file or str(name) not in names() else path_of(str(name))


def near(name: str | os.PathLike[str]) -> list[str]:
    """Return the names of ready configurations that are similar to a mistyped name or path, the most similar first."""
    return difflib.get_close_matches(Path(name).stem, names(), n=3)
