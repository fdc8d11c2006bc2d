"""Image files that a command names one by one, by patterns, or by several folders."""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.readers.folder import list_folder
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder


def expanded(name: str) -> list[str]:
    """Return what a name stands for: the files and folders that a pattern of this machine matches, or the name itself.

    Raises:
        DataError: No file matches a pattern.
    """
    if "://" in name or not glob.has_magic(name) or os.path.lexists(name):
        return [name]
    found = sorted(path for path in glob.glob(os.path.expanduser(name), recursive=True))
    if not found:
        raise DataError(f"{name}: no file matches this pattern")
    return found


def list_chosen(names: Sequence[str], options: IngestOptions) -> Listing:
    """List image files and the images of folders. Images are named by their paths below the folder that has all of them.

    Files are taken whatever their extension; those that do not exist are rejected.

    Raises:
        DataError: They lie on different storages, or none of them exists.
    """
    places = [Folder.at(name) for name in names]
    filesystem = places[0].filesystem
    for place, name in zip(places, names, strict=True):
        if place.filesystem != filesystem:
            raise DataError(f"{names[0]} and {name} lie on different storages: predict them one after the other")
    root = Folder(filesystem, posixpath.commonpath([place.parent.path for place in places]) or "/")
    paths: list[str] = []
    rejected: list[tuple[str, str]] = []
    identity = hashlib.sha256()
    for place in places:
        path = posixpath.relpath(place.path, root.path)
        if place.parent.is_file(place.name):
            paths.append(path)
            identity.update(f"{path}\0{place.parent.size(place.name)}\0".encode(errors="surrogateescape"))
        elif place.exists():
            below = list_folder(place, replace(options, boxes=None))
            paths += [posixpath.normpath(f"{path}/{crop.path}") for of in below.splits.values() for crop in of]
            rejected += [(posixpath.normpath(f"{path}/{lost}"), reason) for lost, reason in below.rejected]
            identity.update(f"{path}\0{below.identity}\0".encode(errors="surrogateescape"))
        else:
            rejected.append((path, "no such file or folder"))
    if not paths:
        raise DataError(f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: no image found")
    listing = list_folder(root, options, sorted(set(paths)))
    listing.rejected[:0] = rejected
    identity.update(listing.identity.encode())
    return Listing(
        listing.splits, listing.read_part, identity.hexdigest(), listing.meta, 0, sequences=False,
        rejected=listing.rejected,
    )  # fmt: skip
