"""A folder of image files as a source, with optional boxes and landmarks."""

from __future__ import annotations

import hashlib
import math
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs as pafs

from ray_kplm import schemas
from ray_kplm.datasets import image_io
from ray_kplm.datasets.dataset import (
    IngestOptions,
    Listing,
    PartTables,
    count_landmarks,
    split_of,
)
from ray_kplm.datasets.ingest_source import Box, Sample, SampleReader, box_fault
from ray_kplm.datasets.readers.parquet import frame_of, read_meta, read_user_table
from ray_kplm.errors import DataError
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

_BOXES = {"image": pa.string(), **dict.fromkeys(("x0", "y0", "x1", "y1"), pa.float64())}
_LANDMARKS = {"image": pa.string(), "landmarks": pa.list_(pa.list_(pa.float32()))}
_SEQUENCES = {"image": pa.string(), "sequence": pa.string(), "frame": pa.int64()}


class Crop(NamedTuple):
    """An entry: one picture, or one object in it.

    Attributes:
        path: Of the picture, below the source folder.
        object: Index of the object, if the picture has several boxes.
        box: Of the object, source frame.
        annotation: Row of the landmarks table.
        frame: The sequence of a video's frame, and its time there.
    """

    path: str
    object: int = NONE
    box: Box | None = None
    annotation: int = NONE
    frame: tuple[str, int] | None = None

    @property
    def image_id(self) -> str:
        """The path, with the index of the object if there are several."""
        return self.path if self.object == NONE else f"{self.path}#{self.object}"


@dataclass(frozen=True)
class FolderReader:
    """Builds parts of a dataset from entries of a folder.

    Attributes:
        source: The folder.
        options: How pictures are cropped.
        annotations: The whole landmarks file; the tasks of a node share one copy.
        landmarks: Annotated landmarks of each image; 0: none.
    """

    source: Folder
    options: IngestOptions
    annotations: pa.Table | None
    landmarks: int

    def read_part(self, entries: Sequence[Crop]) -> PartTables:
        """Return the tables of a part."""
        return SampleReader(self.source, self.options, self.landmarks).read_part(list(map(self._sample, entries)))

    def _sample(self, crop: Crop) -> Sample:
        """Return the entry as a sample, with its annotation."""
        annotation = None
        if self.annotations is not None and crop.annotation != NONE:
            annotation = self.annotations.slice(crop.annotation, 1).to_pylist()[0]
        return Sample(crop.image_id, crop.path, crop.box, annotation=annotation, frame=crop.frame)


def list_folder(source: Folder, options: IngestOptions, chosen: Sequence[str] | None = None) -> Listing:
    """List the image files below `source`; hidden files are ignored, files of other kinds are counted.

    Args:
        source: The folder.
        options: How to ingest it.
        chosen: Paths below the folder: these files alone, whatever their names.
    """
    paths, identity, other_files = _files(source) if chosen is None else (list(chosen), hashlib.sha256(), 0)
    rejected: list[tuple[str, str]] = []
    crops = [Crop(path) for path in paths]
    if options.boxes:
        boxes, digest = _boxes(options.boxes)
        crops = _with_boxes(paths, boxes, rejected)
        identity.update(digest.encode())
    annotations, landmarks = None, 0
    if options.landmarks:
        annotations, digest = read_user_table(options.landmarks, _LANDMARKS)
        landmarks = count_landmarks(options.landmarks, annotations["landmarks"].chunks)
        crops = _with_annotations(crops, annotations, rejected)
        identity.update(digest.encode())
    if options.sequences:
        sequences, digest = read_user_table(options.sequences, _SEQUENCES)
        crops = _with_frames(crops, sequences, rejected)
        identity.update(digest.encode())
    reader = FolderReader(source, options, annotations, landmarks)
    splits = _splits(crops, annotations, options)
    meta = read_meta(source, landmarks)
    known = bool(options.sequences)
    return Listing(splits, reader.read_part, identity.hexdigest(), meta, landmarks, known, rejected, other_files)


def _files(source: Folder) -> tuple[list[str], Any, int]:
    """Return the sorted image paths, a hash of their names, sizes and times, and the number of other files."""
    try:
        infos = source.filesystem.get_file_info(pafs.FileSelector(source.path, recursive=True))
    except OSError as error:
        raise DataError(f"{source}: {error}") from None
    start = len(source.path.rstrip("/")) + 1
    images, other_files = [], 0
    for info in infos:
        path = info.path[start:]
        if info.type != pafs.FileType.File or any(name.startswith(".") for name in path.split("/")):
            continue
        if posixpath.splitext(path)[1].lower() in image_io.EXTENSIONS:
            images.append((path, info.size, info.mtime_ns))
        else:
            other_files += 1
    identity = hashlib.sha256()
    for path, size, modified in sorted(images):
        identity.update(f"{path}\0{size}\0{modified}\n".encode())
    return sorted(path for path, _, _ in images), identity, other_files


def _boxes(uri: str) -> tuple[dict[str, list[Box]], str]:
    """Read the boxes of each image from a user's table, and a hash of its content."""
    table, digest = read_user_table(uri, _BOXES)
    boxes: dict[str, list[Box]] = {}
    for image, *box in zip(*(table[column].to_pylist() for column in _BOXES), strict=True):
        x0, y0, x1, y1 = (math.nan if value is None else value for value in box)
        boxes.setdefault(posixpath.normpath(image or ""), []).append((x0, y0, x1, y1))
    return boxes, digest


def _with_boxes(paths: list[str], boxes: dict[str, list[Box]], rejected: list[tuple[str, str]]) -> list[Crop]:
    """Return one entry for each valid box; invalid boxes and images without a box are rejected."""
    crops = []
    for path in paths:
        image_boxes = boxes.pop(path, [])
        if not image_boxes:
            rejected.append((path, "no box"))
        for number, box in enumerate(image_boxes):
            crop = Crop(path, number if len(image_boxes) > 1 else NONE, box)
            fault = box_fault(box)
            if fault is None:
                crops.append(crop)
            else:
                rejected.append((crop.image_id, fault))
    rejected += [(path, "box names no image") for path, image_boxes in boxes.items() for _ in image_boxes]
    return crops


def _with_annotations(crops: list[Crop], annotations: pa.Table, rejected: list[tuple[str, str]]) -> list[Crop]:
    """Return the entries with their rows of the landmarks table."""
    rows = _rows(annotations, "landmarks", rejected)
    annotated = [crop._replace(annotation=rows.pop(crop.image_id, NONE)) for crop in crops]
    rejected += [(image, "landmarks name no image") for image in rows]
    return annotated


def _with_frames(crops: list[Crop], sequences: pa.Table, rejected: list[tuple[str, str]]) -> list[Crop]:
    """Return the entries with their frames, where the table has them."""
    rows = _rows(sequences, "sequence", rejected)
    places = list(map(frame_of, sequences["sequence"].to_pylist(), sequences["frame"].to_pylist()))
    placed = [crop._replace(frame=places[rows.pop(crop.image_id)]) if crop.image_id in rows else crop for crop in crops]
    rejected += [(image, "sequence names no image") for image in rows]
    return placed


def _rows(table: pa.Table, what: str, rejected: list[tuple[str, str]]) -> dict[str, int]:
    """Return the row of each value of a user's column `image`: a path, or `path#0` for one of several boxes."""
    rows: dict[str, int] = {}
    for number, image in enumerate(posixpath.normpath(name or "") for name in table["image"].to_pylist()):
        if rows.setdefault(image, number) != number:
            rejected.append((image, f"{what} repeated"))
    return rows


def _splits(crops: list[Crop], annotations: pa.Table | None, options: IngestOptions) -> dict[str, list[Crop]]:
    """Split by the top folders if they are `train` and `test`, else by a hash of the group, the sequence or the path."""
    splits: dict[str, list[Crop]] = {schemas.TRAIN: [], schemas.TEST: []}
    has_splits = {crop.path.partition("/")[0] for crop in crops} == set(splits)
    groups: list[str | None] = []
    if annotations is not None and "group" in annotations.column_names:
        groups = annotations["group"].to_pylist()
    for crop in crops:
        group = groups[crop.annotation] if groups and crop.annotation != NONE else None
        unit = group or (crop.frame[0] if crop.frame else crop.path)
        splits[crop.path.partition("/")[0] if has_splits else split_of(unit, options)].append(crop)
    return splits
