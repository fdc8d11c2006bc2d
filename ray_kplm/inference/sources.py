"""Sources of images to predict, in parts: folders, files, Parquet files and datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from ray_kplm import schemas
from ray_kplm.datasets.chosen_files import expanded, list_chosen
from ray_kplm.datasets.dataset import Dataset, IngestOptions, Listing, PartTables
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.datasets.listing import list_source, skipped_texts
from ray_kplm.errors import DataError
from ray_kplm.parts import SharedValue, ThisProcess, Workers
from ray_kplm.run import MANIFEST
from ray_kplm.storage import Folder
from ray_kplm.video.reader import Videos

_SIZE_COLUMNS = ["source_width", "source_height"]
_COLUMNS = ["image_id", "image", "width", "height", "box", "crop_to_source", "sequence", "frame", *_SIZE_COLUMNS]


@dataclass(frozen=True)
class SourceOptions:
    """How images are read for a prediction."""

    image_size: int
    """Side of the network's input, pixels."""
    boxes: str | None = None
    """File of boxes, as for `kplm ingest`; not for a dataset."""
    margin: float = 0.2
    """Margin around a box, as a share of its longer side."""
    split: str | None = None
    """Split of a dataset; None for all."""
    part_images: int = 512
    """Images in a part of a source that is not a dataset."""
    limits: Limits = DEFAULT_LIMITS
    """Of an image file and of a picture."""
    crop_size: int | None = None
    """Longest side of the crops as `kplm ingest` stores them, which are read in place of inputs; None: inputs are read."""


class ReadPart(Protocol):
    """Picklable function that reads the images of a part."""

    def __call__(self, part: str) -> PartTables:
        """Return the images of a part, and the entries that could not be read."""
        ...


@dataclass(frozen=True)
class ImageSource:
    """Images in parts.

    Attributes:
        name: Name of the source.
        identity: Description of the content for people and for the fingerprint.
        parts: Names of the parts.
        counts: Number of images of each part, including those that turn out to be unreadable.
        read: Reads a part.
        rejected: Entries that were refused before their pixels were read: name and reason.
        notes: What the user is told of the source, a line each.
        videos: The videos that images are frames of, if their files are the source.
    """

    name: str
    identity: str
    parts: list[str]
    counts: list[int]
    read: ReadPart
    rejected: list[tuple[str, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    videos: Videos | None = None


def open_source(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: SourceOptions,
    workers: Workers | None = None,
) -> ImageSource:
    """List the images of one source or of several.

    Args:
        sources: A dataset, a folder of images and videos or a Parquet file as `kplm ingest` takes, an image file, a video, a
            pattern such as `photos/*.jpg`, or several files, patterns and folders.
        options: How to read them.
        workers: Where they are read; by default this process.

    Raises:
        DataError: There are no images, or `boxes` or `split` does not apply to the source.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    names = list(dict.fromkeys(name for one in given for name in expanded(os.fspath(one))))
    folder = Folder.at(names[0])
    if len(names) == 1 and folder.is_file(MANIFEST):
        return _dataset_source(Dataset.open(folder), options)
    if options.split:
        raise DataError(
            f"{names[0]}: --split {options.split} applies only to a dataset made by `kplm ingest`; leave it out for images"
        )
    ingest = IngestOptions(
        boxes=options.boxes, margin=options.margin, part_images=options.part_images, test_share=0.0, min_side=1, every=1,
        input_size=None if options.crop_size else options.image_size, size=options.crop_size or IngestOptions.size,
        max_pixels=options.limits.pixels, max_bytes=options.limits.file_bytes,
    )  # fmt: skip
    is_whole = len(names) == 1 and (names[0].endswith(".parquet") or not folder.parent.is_file(folder.name))
    listing = list_source(names[0], ingest) if is_whole else list_chosen(names, ingest)
    return _listed(listing, options, workers or ThisProcess())


def _listed(listing: Listing, options: SourceOptions, workers: Workers) -> ImageSource:
    entries = [entry for of_split in listing.splits.values() for entry in of_split]
    pieces = [entries[start : start + options.part_images] for start in range(0, len(entries), options.part_images)]
    parts = [_part(number) for number in range(len(pieces))]
    read = _ListedImages(listing.read_part, dict(zip(parts, map(workers.share, pieces), strict=True)))
    identity = f"{len(entries)} images, {listing.identity[:16]}"
    counts = [len(piece) for piece in pieces]
    notes = (*listing.notes, *skipped_texts(listing.skipped))
    return ImageSource(listing.meta["name"], identity, parts, counts, read, listing.rejected, notes, listing.videos)


def _dataset_source(dataset: Dataset, options: SourceOptions) -> ImageSource:
    if options.boxes:
        raise DataError(
            f"{dataset.root}: --boxes applies only to a folder of images; the objects of a dataset are cropped already"
        )
    splits = [options.split] if options.split else list(dataset.manifest["splits"])
    stored = [(dataset.images(name), part) for name in splits for part in dataset.parts(name)]
    parts = [_part(number) for number in range(len(stored))]
    counts = [count for name in splits for count in dataset.rows(name)]
    identity = f"{sum(counts)} images of {'+'.join(splits)}, {dataset.fingerprint[:16]}"
    name = dataset.meta.get("name") or dataset.root.name
    return ImageSource(name, identity, parts, counts, _StoredImages(dict(zip(parts, stored, strict=True))))


def _part(number: int) -> str:
    return f"part-{number:05d}.parquet"


@dataclass(frozen=True)
class _ListedImages:
    """Reads parts of a listed source; the entries of a part are one shared value."""

    read_part: Callable[[Sequence[Any]], PartTables]
    entries: dict[str, SharedValue[Sequence[Any]]]

    def __call__(self, part: str) -> PartTables:
        return self.read_part(self.entries[part].get())


@dataclass(frozen=True)
class _StoredImages:
    """Reads parts of a dataset; `stored` maps a part to the dataset's folder and part."""

    stored: dict[str, tuple[Folder, str]]

    def __call__(self, part: str) -> PartTables:
        folder, name = self.stored[part]
        table = folder.read_table(name)
        for column in _SIZE_COLUMNS:  # datasets of earlier versions lack them
            if column not in table.column_names:
                table = table.append_column(schemas.IMAGES.field(column), pa.nulls(table.num_rows, pa.int32()))
        return PartTables(table.select(_COLUMNS), None, schemas.REJECTED.empty_table())
