"""A folder of image files as a source, with optional boxes and landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from ray_kplm import schemas
from ray_kplm.datasets import columns as kinds
from ray_kplm.datasets.dataset import (
    IngestOptions,
    Listing,
    PartTables,
    split_of,
)
from ray_kplm.datasets.description import NAME, landmark_description, read_description
from ray_kplm.datasets.ingest_source import Box, Sample, SampleReader, box_fault
from ray_kplm.datasets.point_shape import PointShape, point_shape, points_array
from ray_kplm.datasets.readers.folder_files import Pictures, list_chosen_files, list_pictures
from ray_kplm.datasets.readers.folder_videos import OpenPictures, split_videos
from ray_kplm.datasets.readers.joins import ImageNames, join_note
from ray_kplm.datasets.readers.parquet import first_known, frame_of
from ray_kplm.datasets.readers.tables import UserTable, read_user_table
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder
from ray_kplm.video.reader import VideoIndex, Videos

_BOXES = {"image": kinds.NAME, **dict.fromkeys(("x0", "y0", "x1", "y1"), kinds.COORDINATE)}
_LANDMARKS = {"image": kinds.NAME, "landmarks": kinds.POINTS}
_LANDMARK_OPTIONS = {"visible": kinds.FLAGS, "group": kinds.LABEL}
_SEQUENCES = {"image": kinds.NAME, "sequence": kinds.LABEL, "frame": kinds.WHOLE}


class Crop(NamedTuple):
    """An entry: one picture, or one object in it.

    Attributes:
        path: Of the picture, below the source folder.
        object: Index of the object, if the picture has several boxes.
        box: Of the object, source frame.
        annotation: Row of the landmarks table.
        frame: The sequence of a video's frame, and its time there.
        sequence: The sequence, also where the frame's time is not known.
        video: Path of the video, if the picture is a frame of one and no file.
    """

    path: str
    object: int = NONE
    box: Box | None = None
    annotation: int = NONE
    frame: tuple[str, int] | None = None
    sequence: str | None = None
    video: str | None = None

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
        points: Shape of each image's annotated landmarks; None: none.
        videos: What is known of the videos among the pictures.
    """

    source: Folder
    options: IngestOptions
    annotations: pa.Table | None
    points: PointShape | None
    videos: dict[str, VideoIndex] = field(default_factory=dict)

    def read_part(self, entries: Sequence[Crop]) -> PartTables:
        """Return the tables of a part."""
        landmarks = self.points.landmarks if self.points else 0
        opener = OpenPictures(self.videos, self.options.limits)
        reader = SampleReader(self.source, self.options, landmarks, opener=opener)
        return reader.read_part(list(map(self._sample, entries)))

    def _sample(self, crop: Crop) -> Sample:
        """Return the entry as a sample, with its annotation."""
        annotation = None
        if self.annotations is not None and crop.annotation != NONE:
            row = self.annotations.slice(crop.annotation, 1).to_pylist()[0]
            annotation = {**row, "landmarks": points_array(row["landmarks"], self.points)} if self.points else row
        return Sample(crop.image_id, crop.video or crop.path, crop.box, annotation=annotation, frame=crop.frame)


def list_folder(source: Folder, options: IngestOptions, chosen: Sequence[str] | None = None) -> Listing:
    """List the image files below `source`; hidden files are ignored, files of other kinds are counted.

    Args:
        source: The folder.
        options: How to ingest it.
        chosen: Paths below the folder: these files alone, whatever their names.
    """
    pictures = list_pictures(source, options) if chosen is None else list_chosen_files(source, chosen, options)
    identity, joined = pictures.identity, _Joins(source, pictures.rejected, pictures.notes)
    crops = [Crop(path) for path in pictures.paths]
    if options.boxes:
        boxes = joined.read(options.boxes, _BOXES, {}, identity)
        crops = _with_boxes(pictures.paths, joined.boxes(boxes.table, pictures.paths), joined.rejected)
    annotations, points = None, None
    if options.landmarks:
        annotations = joined.read(options.landmarks, _LANDMARKS, _LANDMARK_OPTIONS, identity).table
        points = point_shape(options.landmarks, annotations["landmarks"].chunks)
        joined.notes += points.lines(options.landmarks)
        rows = joined.rows("--landmarks", "landmarks", annotations, crops)
        crops = [crop._replace(annotation=rows.get(crop.image_id, NONE)) for crop in crops]
    if options.sequences:
        sequences = joined.read(options.sequences, _SEQUENCES, {}, identity).table
        crops = _with_frames(crops, sequences, joined.rows("--sequences", "sequence", sequences, crops))
    crops = [
        crop if crop.path not in pictures.frames else _of_video(crop, *pictures.frames[crop.path]) for crop in crops
    ]
    reader = FolderReader(source, options, annotations, points, pictures.index)
    splits = _splits(crops, annotations, pictures, options)
    landmarks = points.landmarks if points else 0
    meta = landmark_description(read_description(source), landmarks, f"{source}/{NAME}", source.name)
    return Listing(
        splits,
        reader.read_part,
        identity.hexdigest(),
        meta,
        landmarks,
        bool(options.sequences or pictures.frames),
        joined.rejected,
        pictures.other_files,
        tuple(joined.notes),
        pictures.skipped,
        Videos(source, pictures.index),
    )


def _of_video(crop: Crop, video: str, number: int) -> Crop:
    return crop._replace(frame=(video, number), sequence=video, video=video)


@dataclass
class _Joins:
    """Joins of the user's tables with the images of a folder, and what is said of them."""

    source: Folder
    rejected: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(
        self, uri: str, columns: dict[str, kinds.Kind], optional: dict[str, kinds.Kind], identity: Any
    ) -> UserTable:
        """Read a table; its content is part of the source's identity."""
        read = read_user_table(uri, columns, optional)
        identity.update(read.digest.encode())
        self.rejected += read.faults
        self.notes += read.notes
        return read

    def boxes(self, table: pa.Table, paths: list[str]) -> dict[str, list[Box]]:
        """Return the boxes of each image."""
        names, unmatched = ImageNames(paths, self.source.path), []
        boxes: dict[str, list[Box]] = {}
        for image, *box in zip(*(table[column].to_pylist() for column in _BOXES), strict=True):
            path = names.find(image)
            if path is None:
                unmatched.append(image or "")
                continue
            x0, y0, x1, y1 = (math.nan if value is None else value for value in box)
            boxes.setdefault(path, []).append((x0, y0, x1, y1))
        self.notes += join_note("--boxes", table.num_rows, unmatched, names)
        self.rejected += [(image, "box names no image") for image in unmatched]
        return boxes

    def rows(self, option: str, what: str, table: pa.Table, crops: list[Crop]) -> dict[str, int]:
        """Return the row of each image that a table names: by its path, or as `path#0` if it has several boxes."""
        names, unmatched = ImageNames((crop.image_id for crop in crops), self.source.path), []
        rows: dict[str, int] = {}
        twice = []
        for number, image in enumerate(table["image"].to_pylist()):
            name = names.find(image)
            if name is None:
                unmatched.append(image or "")
            elif rows.setdefault(name, number) != number:
                twice.append(name)
        self.notes += join_note(option, table.num_rows, unmatched, names)
        self.rejected += [(image, f"{what} name{'s' if what == 'sequence' else ''} no image") for image in unmatched]
        self.rejected += [(image, f"{what} repeated: the first row is used") for image in twice]
        return rows


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
    return crops


def _with_frames(crops: list[Crop], sequences: pa.Table, rows: dict[str, int]) -> list[Crop]:
    """Return the entries with their frames, where the table has them."""
    named = sequences["sequence"].to_pylist()
    places = list(map(frame_of, named, sequences["frame"].to_pylist()))
    numbers = [rows.get(crop.image_id, NONE) for crop in crops]
    return [
        crop if number == NONE else crop._replace(frame=places[number], sequence=named[number])
        for crop, number in zip(crops, numbers, strict=True)
    ]


def _splits(
    crops: list[Crop], annotations: pa.Table | None, pictures: Pictures, options: IngestOptions
) -> dict[str, list[Crop]]:
    """Split as the folders say, or else by a hash of the group, the sequence or the path; copies and videos stay together."""
    splits: dict[str, list[Crop]] = {schemas.TRAIN: [], schemas.TEST: []}
    frames = {} if pictures.split else pictures.frames
    of_frame = split_videos(frames, options, alone=len(frames) == len(pictures.paths))
    groups: list[str | None] = []
    if annotations is not None and "group" in annotations.column_names:
        groups = annotations["group"].to_pylist()
    for crop in crops:
        if crop.path in pictures.dropped:
            continue
        group = groups[crop.annotation] if groups and crop.annotation != NONE else None
        unit = first_known(group, crop.sequence, pictures.original.get(crop.path), crop.path) or ""
        drawn = (group is None and of_frame.get(crop.path)) or split_of(unit, options)
        splits[pictures.split.get(crop.path) or drawn].append(crop)
    return splits
