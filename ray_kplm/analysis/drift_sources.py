"""Images for drift, in parts: a sample of a dataset's split, or any images, each with its group."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.analysis.drift_choices import FOLDER
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, full_selection
from ray_kplm.errors import ConfigError
from ray_kplm.inference.sources import SourceOptions, open_source
from ray_kplm.run import MANIFEST
from ray_kplm.storage import Folder

Read = Callable[[], tuple[pa.Table, list[str | None], list[tuple[str, str]]]]
"""Returns the images of a part (schemas.IMAGES), their groups, and what of the part could not be read: name and reason."""


@dataclass(frozen=True)
class Part:
    """A part of some images.

    Attributes:
        name: Its name.
        rows: Chosen images of it, ascending.
        read: Reads it.
    """

    name: str
    rows: NDArray[np.int64]
    read: Read


@dataclass(frozen=True)
class DriftSource:
    """Images in parts.

    Attributes:
        name: What they are called.
        parts: The parts, with the images that are looked at.
        total: Number of all images.
        rejected: Entries that are refused before their pixels are read: name and reason.
        notes: What the user is told of the source, a line each.
    """

    name: str
    parts: list[Part]
    total: int
    rejected: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)


def training_sample(dataset: Dataset, split: str, count: int, seed: int) -> list[Part]:
    """Return a seeded sample of a split's images."""
    whole = full_selection(dataset.parts(split), dataset.rows(split))
    chosen = whole.sample(count, (seed, 37), SAMPLE_PARTS)
    return [
        Part(part, rows, _reader(dataset, split, part)) for part, rows in zip(chosen.parts, chosen.rows, strict=True)
    ]


def new_images(sources: Sequence[str], options: SourceOptions, count: int, grouping: str | None = None) -> DriftSource:
    """Open the new images, of which at most `count` are looked at, evenly spread over all.

    Args:
        sources: As `inference.sources.open_source` takes them.
        options: How they are read.
        count: Of images.
        grouping: FOLDER; None and ALONE: the groups that the source states.

    Raises:
        DataError: There are no images.
        ConfigError: A dataset has no folders.
    """
    folder = Folder.at(sources[0])
    if len(sources) == 1 and folder.is_file(MANIFEST):
        dataset = Dataset.open(folder)
        if grouping == FOLDER:
            raise ConfigError(f"--groups {FOLDER}: {folder} is a dataset, which states its groups itself; leave it out")
        splits = [options.split] if options.split else list(dataset.manifest["splits"])
        stored = [(split, part) for split in splits for part in dataset.parts(split)]
        counts = [rows for split in splits for rows in dataset.rows(split)]
        parts = [
            Part(f"{split}/{part}", rows, _reader(dataset, split, part))
            for (split, part), rows in zip(stored, _spread(counts, count), strict=True)
            if len(rows)
        ]
        return DriftSource(str(dataset.meta.get("name") or dataset.root.name), parts, sum(counts))
    source = open_source(sources, options)

    def reader(part: str) -> Read:
        def read() -> tuple[pa.Table, list[str | None], list[tuple[str, str]]]:
            tables = source.read(part)
            groups = _stated(tables.images, tables.landmarks)
            if grouping == FOLDER:
                groups = [name.rpartition("/")[0] for name in tables.images["image_id"].to_pylist()]
            lost = list(zip(*(tables.rejected[name].to_pylist() for name in ("source", "reason")), strict=True))
            return tables.images, groups, lost

        return read

    parts = [
        Part(part, rows, reader(part))
        for part, rows in zip(source.parts, _spread(source.counts, count), strict=True)
        if len(rows)
    ]
    return DriftSource(source.name, parts, sum(source.counts), source.rejected, source.notes)


def _reader(dataset: Dataset, split: str, part: str) -> Read:
    def read() -> tuple[pa.Table, list[str | None], list[tuple[str, str]]]:
        names = ["image_id", "image", "width", "height", "box", "crop_to_source", "sequence", "frame"]
        images = dataset.images(split).read_table(part, names)
        stated = dataset.landmarks(split).read_table(part, ["group"]) if dataset.has_landmarks else None
        return images, _stated(images, stated), []

    return read


def _stated(images: pa.Table, landmarks: pa.Table | None) -> list[str | None]:
    """Return the video that each image is a frame of, or the group that an annotation states; None for none."""
    groups: list[str | None] = images["sequence"].to_pylist()
    stated = [None] * len(groups) if landmarks is None else landmarks["group"].to_pylist()
    return [one or other for one, other in zip(groups, stated, strict=True)]


def _spread(counts: Sequence[int], most: int) -> list[NDArray[np.int64]]:
    """Return the rows of each part of at most `most` images in all, evenly spread over all of them."""
    total = sum(counts)
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(np.int64)) if total else np.array([])
    starts = np.cumsum([0, *counts])
    return [
        (chosen[(chosen >= first) & (chosen < last)] - first).astype(np.int64)
        for first, last in itertools.pairwise(starts)
    ]
