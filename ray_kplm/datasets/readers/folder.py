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
from ray_kplm.datasets.ingest_source import Box, Sample, SampleReader, fault_of
from ray_kplm.datasets.readers.parquet import frame_of, read_meta, read_user_table
from ray_kplm.errors import DataError
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

_BOXES = {"image": pa.string(), **dict.fromkeys(("x0", "y0", "x1", "y1"), pa.float64())}
_LANDMARKS = {"image": pa.string(), "landmarks": pa.list_(pa.list_(pa.float32()))}
_SEQUENCES = {"image": pa.string(), "sequence": pa.string(), "frame": pa.int64()}


class Crop(NamedTuple):
    """An entry: one picture, or one object in it."""

    path: str  # below the source folder
    object: int = NONE  # which of the picture's several boxes
    box: Box | None = None  # source frame
    annotation: int = NONE  # row of the landmarks table
    frame: tuple[str, int] | None = None  # its sequence, and its time there

    @property
    def image_id(self) -> str:
        return self.path if self.object == NONE else f"{self.path}#{self.object}"


@dataclass(frozen=True)
class FolderReader:
    """Reads entries of a folder."""

    source: Folder
    options: IngestOptions
    annotations: pa.Table | None
    """The whole landmarks file; the tasks of a node share one copy."""
    landmarks: int

    def read_part(self, entries: Sequence[Crop]) -> PartTables:
        return SampleReader(self.source, self.options, self.landmarks).read_part(list(map(self._sample, entries)))

    def _sample(self, crop: Crop) -> Sample:
        annotation = None
        if self.annotations is not None and crop.annotation != NONE:
            annotation = self.annotations.slice(crop.annotation, 1).to_pylist()[0]
        return Sample(crop.image_id, crop.path, crop.box, annotation=annotation, frame=crop.frame)


def list_folder(source: Folder, options: IngestOptions) -> Listing:
    """List the image files below `source`; hidden ones do not exist, files of other kinds are counted."""
    paths, identity, other_files = _files(source)
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
    """Sorted image paths, a hash of what they are, and the number of other files."""
    try:
        infos = source.filesystem.get_file_info(pafs.FileSelector(source.path, recursive=True))
    except OSError as error:
        raise DataError(f"{source}: {error}") from None
    start = len(source.path.rstrip("/")) + 1
    found, other_files = [], 0
    for info in infos:
        path = info.path[start:]
        if info.type != pafs.FileType.File or any(name.startswith(".") for name in path.split("/")):
            continue
        if posixpath.splitext(path)[1].lower() in image_io.EXTENSIONS:
            found.append((path, info.size, info.mtime_ns))
        else:
            other_files += 1
    identity = hashlib.sha256()
    for path, size, modified in sorted(found):
        identity.update(f"{path}\0{size}\0{modified}\n".encode())
    return sorted(path for path, _, _ in found), identity, other_files


def _boxes(uri: str) -> tuple[dict[str, list[Box]], str]:
    table, digest = read_user_table(uri, _BOXES)
    boxes: dict[str, list[Box]] = {}
    for image, *box in zip(*(table[column].to_pylist() for column in _BOXES), strict=True):
        x0, y0, x1, y1 = (math.nan if value is None else value for value in box)
        boxes.setdefault(posixpath.normpath(image or ""), []).append((x0, y0, x1, y1))
    return boxes, digest


def _with_boxes(paths: list[str], boxes: dict[str, list[Box]], rejected: list[tuple[str, str]]) -> list[Crop]:
    """One entry for each box that can be one; the others, and images without a box, are rejected."""
    crops = []
    for path in paths:
        of_picture = boxes.pop(path, [])
        if not of_picture:
            rejected.append((path, "no box"))
        for number, box in enumerate(of_picture):
            crop = Crop(path, number if len(of_picture) > 1 else NONE, box)
            fault = fault_of(box)
            if fault is None:
                crops.append(crop)
            else:
                rejected.append((crop.image_id, fault))
    rejected += [(path, "box names no image") for path, of_picture in boxes.items() for _ in of_picture]
    return crops


def _with_annotations(crops: list[Crop], annotations: pa.Table, rejected: list[tuple[str, str]]) -> list[Crop]:
    """Each entry with its row of the landmarks table."""
    rows = _rows(annotations, "landmarks", rejected)
    annotated = [crop._replace(annotation=rows.pop(crop.image_id, NONE)) for crop in crops]
    rejected += [(image, "landmarks name no image") for image in rows]
    return annotated


def _with_frames(crops: list[Crop], sequences: pa.Table, rejected: list[tuple[str, str]]) -> list[Crop]:
    """Each entry with its place in a sequence, if the table has one for it."""
    rows = _rows(sequences, "sequence", rejected)
    places = list(map(frame_of, sequences["sequence"].to_pylist(), sequences["frame"].to_pylist()))
    placed = [crop._replace(frame=places[rows.pop(crop.image_id)]) if crop.image_id in rows else crop for crop in crops]
    rejected += [(image, "sequence names no image") for image in rows]
    return placed


def _rows(table: pa.Table, what: str, rejected: list[tuple[str, str]]) -> dict[str, int]:
    """Rows of a user's table by its column image, which names an image or, of several boxes, `image#0`."""
    rows: dict[str, int] = {}
    for number, image in enumerate(posixpath.normpath(name or "") for name in table["image"].to_pylist()):
        if rows.setdefault(image, number) != number:
            rejected.append((image, f"{what} repeated"))
    return rows


def _splits(crops: list[Crop], annotations: pa.Table | None, options: IngestOptions) -> dict[str, list[Crop]]:
    """By the top folders if they are `train` and `test`, else by a hash of the group, of the sequence, or of the path."""
    splits: dict[str, list[Crop]] = {schemas.TRAIN: [], schemas.TEST: []}
    given = {crop.path.partition("/")[0] for crop in crops} == set(splits)
    groups: list[str | None] = []
    if annotations is not None and "group" in annotations.column_names:
        groups = annotations["group"].to_pylist()
    for crop in crops:
        group = groups[crop.annotation] if groups and crop.annotation != NONE else None
        together = group or (crop.frame[0] if crop.frame else crop.path)
        splits[crop.path.partition("/")[0] if given else split_of(together, options)].append(crop)
    return splits
