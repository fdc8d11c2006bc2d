"""Image files and videos that a command names one by one, by patterns, or by several folders."""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.listing import NoImageError, list_source
from ray_kplm.datasets.readers.folder import list_folder
from ray_kplm.datasets.readers.folder_files import list_below
from ray_kplm.datasets.readers.folder_videos import videos_among
from ray_kplm.datasets.registry import AUTO
from ray_kplm.errors import DataError
from ray_kplm.run import MANIFEST
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


def list_sources(sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], options: IngestOptions) -> Listing:
    """List one source as `listing.list_source` does, or several, or image files and videos by name.

    Raises:
        DataError: There is no such source, or several of which one stands alone, such as a published data set.
        NoImageError: It has no images.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    names = list(dict.fromkeys(name for one in given for name in expanded(os.fspath(one))))
    first = Folder.at(names[0])
    is_video = first.parent.is_file(first.name) and bool(videos_among(first.parent, [first.name]))
    if len(names) == 1 and not is_video:
        return list_source(names[0], options)
    if options.format != AUTO:
        raise DataError(f"{', '.join(names[:3])}: a source of format {options.format} is one folder")
    return list_chosen(names, options)


def list_chosen(names: Sequence[str], options: IngestOptions) -> Listing:
    """List image files, videos, and what folders have of both, named by their paths below the folder that has all of them.

    Files are taken whatever their extension; those that do not exist are rejected.

    Raises:
        DataError: They lie on different storages, or none of them exists or can be used.
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
        if place.parent.is_file(place.name) and place.name.endswith(".parquet"):
            raise DataError(f"{place}: a Parquet file stands alone: predict it by a command of its own")
        if place.parent.is_file(place.name):
            paths.append(path)
            identity.update(f"{path}\0{place.parent.size(place.name)}\0".encode(errors="surrogateescape"))
        elif place.is_file(MANIFEST) or place.is_file("train.parquet"):
            raise DataError(f"{place}: a dataset and Parquet files stand alone: predict them by a command of their own")
        elif place.exists():
            below = list_below(place, options)
            paths += [posixpath.normpath(f"{path}/{file}") for file in below.paths]
            rejected += [(posixpath.normpath(f"{path}/{lost}"), reason) for lost, reason in below.rejected]
            identity.update(f"{path}\0{below.identity.hexdigest()}\0".encode(errors="surrogateescape"))
        else:
            rejected.append((path, "no such file or folder"))
    if not paths:
        raise DataError(f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: no image found")
    listing = list_folder(root, options, sorted(set(paths)))
    listing.rejected[:0] = rejected
    identity.update(listing.identity.encode())
    if not any(listing.splits.values()):
        example = ": ".join(listing.rejected[0])
        raise NoImageError(
            f"{names[0]}: no image found; {len(listing.rejected)} rejected, e.g. {example}", listing.rejected
        )
    return replace(listing, identity=identity.hexdigest())
