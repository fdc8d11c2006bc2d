"""Sources of images to predict, in parts: folders, Parquet files and datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray_kplm import schemas
from ray_kplm.datasets.dataset import Dataset, IngestOptions, PartTables
from ray_kplm.datasets.listing import list_source
from ray_kplm.errors import DataError
from ray_kplm.run import MANIFEST
from ray_kplm.runtime.tasks import Shared
from ray_kplm.storage import Folder

_COLUMNS = ["image_id", "image", "width", "height", "box", "crop_to_source"]


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
    """

    name: str
    identity: str
    parts: list[str]
    counts: list[int]
    read: ReadPart
    rejected: list[tuple[str, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def open_source(
    source: str | os.PathLike[str],
    *,
    boxes: str | None,
    margin: float,
    split: str | None,
    part_images: int,
    image_size: int,
) -> ImageSource:
    """List the images of a source.

    Args:
        source: A dataset, or a folder of images or Parquet files as `kplm ingest` takes.
        boxes: File of boxes, as for `kplm ingest`; for a folder of images.
        margin: Margin around a box, as a share of its longer side.
        split: Split of a dataset; None for all.
        part_images: Images in a part of a source that is not a dataset.
        image_size: Side of the network's input, pixels; larger crops are stored at twice this size.

    Raises:
        DataError: The source has no images, or `boxes` or `split` does not apply to it.
    """
    folder = Folder.at(source)
    if folder.is_file(MANIFEST):
        return _dataset_source(Dataset.open(folder), boxes, split)
    if split:
        raise DataError(
            f"{source}: --split {split} applies only to a dataset made by `kplm ingest`; leave it out for a folder of images"
        )
    ingest = IngestOptions(
        boxes=boxes, margin=margin, part_images=part_images, test_share=0.0, min_side=1, size=2 * image_size
    )
    listing = list_source(source, ingest)
    entries = [entry for of_split in listing.splits.values() for entry in of_split]
    pieces = [entries[start : start + part_images] for start in range(0, len(entries), part_images)]
    parts = [_part(number) for number in range(len(pieces))]
    read = _ListedImages(listing.read_part, dict(zip(parts, map(Shared, pieces), strict=True)))
    identity = f"{len(entries)} images, {listing.identity[:16]}"
    counts = [len(piece) for piece in pieces]
    return ImageSource(listing.meta["name"], identity, parts, counts, read, listing.rejected, listing.notes)


def _dataset_source(dataset: Dataset, boxes: str | None, split: str | None) -> ImageSource:
    if boxes:
        raise DataError(
            f"{dataset.root}: --boxes applies only to a folder of images; the objects of a dataset are cropped already"
        )
    splits = [split] if split else list(dataset.manifest["splits"])
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
    """Reads parts of a listed source; the entries of a part are one object in Ray's object store."""

    read_part: Callable[[Sequence[Any]], PartTables]
    entries: dict[str, Shared[Sequence[Any]]]

    def __call__(self, part: str) -> PartTables:
        return self.read_part(self.entries[part].get())


@dataclass(frozen=True)
class _StoredImages:
    """Reads parts of a dataset; `stored` maps a part to the dataset's folder and part."""

    stored: dict[str, tuple[Folder, str]]

    def __call__(self, part: str) -> PartTables:
        folder, name = self.stored[part]
        return PartTables(folder.read_table(name, _COLUMNS), None, schemas.REJECTED.empty_table())
