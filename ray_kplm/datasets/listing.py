"""What an ingest source is: which reader lists it, and what of it was lost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from ray_kplm.datasets import file_kinds
from ray_kplm.datasets.dataset import IngestOptions, Listing, printable
from ray_kplm.datasets.readers.folder import list_folder
from ray_kplm.datasets.readers.parquet import list_parquet
from ray_kplm.datasets.readers.shards import split_shards, split_word
from ray_kplm.datasets.registry import AUTO, load_reader
from ray_kplm.datasets.source_files import list_files
from ray_kplm.errors import DataError, StorageError
from ray_kplm.storage import Folder

_SHARD_FOLDERS = ("data", "default")
"""Folders of Parquet files as hubs have them, beside those that are called as splits."""


class NoImageError(DataError):
    """A source has no image that can be used.

    Attributes:
        rejected: Path and reason of each file that might have been one.
    """

    def __init__(self, message: str, rejected: list[tuple[str, str]]) -> None:
        super().__init__(message)
        self.rejected = rejected


def list_source(source: str | os.PathLike[str], options: IngestOptions) -> Listing:
    """List what a source holds, by the reader that it asks for.

    Args:
        source: a folder in the layout of `options.format`; with `auto` a Parquet file, a folder with `train.parquet`, or a
            folder of images.
        options: how to ingest it.

    Raises:
        DataError: there is no such source.
        NoImageError: it has no images.
    """
    folder = Folder.at(source)
    if not folder.exists():
        raise DataError(f"{source}: no such file or folder")
    parent = Folder(folder.filesystem, folder.path.rpartition("/")[0])
    if options.format != AUTO:
        if parent.is_file(folder.name):
            raise DataError(f"{source}: the source of format {options.format} is the folder that it was unpacked to")
        listing = load_reader(options.format)(folder, options)
    elif parent.is_file(folder.name):
        if not folder.name.endswith(".parquet"):
            raise DataError(f"{source}: a source is a folder of images or a .parquet file")
        listing = list_parquet(parent, {folder.name: None}, options)
    elif not folder.is_folder():
        raise DataError(f"{source}: a source is a folder of images or a .parquet file")
    elif shards := _shards(folder):
        files, notes = split_shards(shards)
        listing = list_parquet(folder, files, options, notes)
    else:
        listing = list_folder(folder, options)
    if not any(listing.splits.values()):
        kinds = count_kinds(reason for _, reason in listing.rejected)
        example = ", e.g. {}: {}".format(*map(printable, listing.rejected[0])) if listing.rejected else ""
        what = losses_text(kinds, listing.other_files, listing.skipped)
        raise NoImageError(f"{source}: no image found; {what}{example}", listing.rejected)
    return listing


def _shards(folder: Folder) -> list[str]:
    """Return the paths of the Parquet files of a source of Parquet files, [] for a folder of images.

    A folder with `train.parquet` is such a source in any case; others are one if they hold no images, not even in folders. The
    files lie in the folder, or in folders that are called data, default or as splits.
    """
    if folder.is_file("train.parquet"):
        return _parquet_files(folder)
    files = _parquet_files(folder)
    for name in _listed(folder.folders):
        if _may_hold_shards(name):
            below = folder / name
            files += [f"{name}/{file}" for file in _parquet_files(below)]
            files += [
                f"{name}/{deeper}/{file}"
                for deeper in _listed(below.folders)
                if _may_hold_shards(deeper)
                for file in _parquet_files(below / deeper)
            ]
    if not files:
        return []
    there = [file.path for file in list_files(folder).files]  # each folder once, in spite of links
    has_pictures = any(file_kinds.is_picture(file_kinds.extension_of(path)) for path in there)
    return [] if has_pictures else sorted(set(files) & set(there))


def _parquet_files(folder: Folder) -> list[str]:
    return [name for name in _listed(folder.names) if name.endswith(".parquet") and not file_kinds.is_hidden(name)]


def _may_hold_shards(name: str) -> bool:
    return not file_kinds.is_hidden(name) and (name in _SHARD_FOLDERS or split_word(name) is not None)


def _listed(names: Callable[[], list[str]]) -> list[str]:
    """Return the names in a folder, none if it cannot be read: its reader names it then."""
    try:
        return names()
    except OSError:
        return []
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            return []
        raise


def count_kinds(reasons: Iterable[str]) -> dict[str, int]:
    """Return the number of rejected inputs by kind, the most frequent first. reasons: `kind` or `kind: detail`."""
    return dict(Counter(reason.partition(":")[0] for reason in reasons).most_common())


def losses_text(kinds: Mapping[str, int], other_files: int, skipped: Mapping[str, int] | None = None) -> str:
    """Return a line about the inputs of a source that are not in its dataset.

    Args:
        kinds: Number of rejected inputs by kind.
        other_files: Number of files that are no pictures.
        skipped: Number of files that are not read, by extension.
    """
    reasons = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    line = f"{sum(kinds.values())} rejected{f' ({reasons})' if reasons else ''}, {other_files} other files"
    return "; ".join([line, *skipped_texts(skipped or {})])


def skipped_texts(skipped: Mapping[str, int]) -> list[str]:
    """Return what is to do about files that are not read, of which `skipped` has the number by extension."""
    by_advice: dict[str, list[str]] = {}
    for extension, count in skipped.items():
        by_advice.setdefault(file_kinds.advice(extension), []).append(f"{count} {extension}")
    return [f"{', '.join(counts)} skipped: {advice}" for advice, counts in by_advice.items()]
