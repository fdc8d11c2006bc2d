"""A job works in Ray's copy of the folder that was submitted; what it writes there is lost when Ray deletes the copy."""

from __future__ import annotations

import os
import re

from ray_kplm.errors import ConfigError

_COPY = re.compile(r"^(.*/working_dir_files/_ray_pkg_[^/]+)(/|$)")
"""Where Ray unpacks the folder of a job, on each node (Ray 2.60)."""


def refuse_lost(uri: str | os.PathLike[str], name: str) -> None:
    """Raise ConfigError if a place to write to lies in Ray's copy of a submitted folder.

    Args:
        uri: a path or URI.
        name: what it is, for the message.
    """
    text = os.fspath(uri)
    if "://" in text and not text.startswith("file://"):
        return
    path = os.path.abspath(os.path.expanduser(text.removeprefix("file://")))
    if any(_COPY.match(place) for place in (path, os.path.realpath(path))):
        raise ConfigError(
            f"{name} {text}: lies in Ray's copy of the folder that was submitted, which is deleted after the job; give an "
            "absolute path that every node reaches, or a URI such as s3://bucket/key"
        )
