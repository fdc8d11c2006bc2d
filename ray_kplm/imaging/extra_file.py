"""The file of `augment.extra`: its content, and the hash of it that fingerprints hold. Without albumentations."""

from __future__ import annotations

import hashlib

from ray_kplm.errors import ConfigError
from ray_kplm.storage import Folder


def content(uri: str) -> bytes:
    """Return the content of the file at a path or URI.

    Raises:
        ConfigError: It cannot be read.
    """
    file = Folder.at(uri)
    try:
        return file.parent.read_bytes(file.name)
    except OSError as error:
        raise unusable(uri, f"cannot be read ({error.strerror or error}); name a file of albumentations.save") from None


def content_hash(uri: str) -> str:
    """Return the hash of the file's content: where it lies does not matter.

    Raises:
        ConfigError: It cannot be read.
    """
    return hashlib.sha256(content(uri)).hexdigest()[:16]


def unusable(uri: str, what: str) -> ConfigError:
    """Return the error of a file that cannot be used, with the reason and the way out."""
    return ConfigError(f"augment.extra = {uri!r}: {what}")
