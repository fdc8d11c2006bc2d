"""One picture of an object with its annotation, as every reader of pictures hands it to ingest."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets import image_io
from ray_kplm.datasets.dataset import IngestOptions, PartBuilder, PartTables
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in source pixels, centres at integers."""


class Sample(NamedTuple):
    """An entry of a listing: one object in one picture. All coordinates are in the source frame."""

    image_id: str
    path: str  # of the picture, or of the video, below the source folder
    box: Box | None = None  # of the object
    window: Box | None = None  # what the crop is cut around; None: the box, or else the whole picture
    annotation: dict[str, Any] | None = None  # landmarks (L, 2), visible (L,), group, and numbers as attributes
    frame: tuple[str, int] | None = None  # its sequence, and its time there
    mirrored: bool = False  # the crop is stored as its mirror image


Opened = tuple[bytes, image_io.Picture]
Opener = Callable[[Folder, str, Sequence[Sample]], Iterator[Opened]]
"""(source, path, samples of it) -> for each sample the encoded file, or b"" where there is none, and the picture."""
Complete = Callable[[Folder, Sample], Sample]
"""Reads what a sample's own annotation file says, when its part is built; a listing of many files stays quick."""


def open_image(source: Folder, path: str, samples: Sequence[Sample]) -> Iterator[Opened]:
    """An image file, read and decoded once for all the objects in it."""
    try:
        content = source.read_bytes(path)
    except FileNotFoundError:
        raise DataError("unreadable: gone since the folder was listed") from None
    except PermissionError:
        raise DataError("unreadable: permission denied") from None
    picture = image_io.decode_image_file(content)
    for _ in samples:
        yield content, picture


@dataclass(frozen=True)
class SampleReader:
    """Builds parts of samples. What cannot be read is rejected with its reason, and the rest goes on."""

    source: Folder
    options: IngestOptions
    landmarks: int
    complete: Complete | None = None
    opener: Opener = open_image

    def read_part(self, entries: Sequence[Sample]) -> PartTables:
        part = PartBuilder(self.landmarks)
        for path, group in groupby(self._completed(part, entries), key=attrgetter("path")):
            waiting = deque(group)
            try:
                for content, picture in self.opener(self.source, path, tuple(waiting)):
                    self._add(part, waiting.popleft(), content, picture)
            except DataError as error:
                for sample in waiting:
                    part.reject(sample.image_id, str(error))
        return part.tables()

    def _completed(self, part: PartBuilder, entries: Sequence[Sample]) -> Iterator[Sample]:
        for sample in entries:
            try:
                yield sample if self.complete is None else self.complete(self.source, sample)
            except DataError as error:
                part.reject(sample.image_id, str(error))

    def _add(self, part: PartBuilder, sample: Sample, content: bytes, picture: image_io.Picture) -> None:
        try:
            add_sample(part, sample, content, picture, self.options)
        except DataError as error:
            part.reject(sample.image_id, str(error))


def add_sample(
    part: PartBuilder, sample: Sample, content: bytes, picture: image_io.Picture, options: IngestOptions
) -> None:
    """Cut the object out and add it. A picture that is used whole and needs no change keeps its bytes."""
    full = image_io.whole(picture.rgb)
    around = sample.window or sample.box
    window = full if around is None else image_io.around(around, options.margin, full)
    rgb, crop_to_source = image_io.cut(picture.rgb, window, options.size)
    image_io.check_side(rgb, options.min_side)
    kept = picture.plain and around is None and rgb.shape == picture.rgb.shape and not sample.mirrored
    if sample.mirrored:
        crop_to_source = coordinates.compose(crop_to_source, coordinates.mirroring(rgb.shape[1]))
        rgb = np.ascontiguousarray(rgb[:, ::-1])
    source_to_crop = coordinates.invert(crop_to_source)
    box = None if sample.box is None else _box_in(source_to_crop, sample.box)
    annotation = sample.annotation
    if annotation is not None and annotation.get("landmarks") is not None and len(annotation["landmarks"]):
        points = np.array(annotation["landmarks"], dtype=np.float64)
        annotation = {**annotation, "landmarks": coordinates.apply(source_to_crop, points)}
    part.add(
        sample.image_id, content if kept else image_io.encode(rgb), rgb, box, crop_to_source, annotation, sample.frame
    )


def _box_in(source_to_crop: coordinates.Affine, box: Box) -> NDArray[np.float64]:
    """The box in the crop frame; a mirrored crop exchanges its sides."""
    corners = coordinates.apply(source_to_crop, np.reshape(box, (2, 2)))
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def fault_of(box: Box) -> str | None:
    """Why four numbers are no box, as `rejected.parquet` says it; None: they are one."""
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        return "bad box: not four finite numbers"
    return "box without area" if x1 <= x0 or y1 <= y0 else None


def bounds(xy: NDArray) -> Box:
    """The box around the annotated of the points (L, 2): the object's where a data set gives none."""
    known = xy[np.isfinite(xy).all(axis=1)]
    if not len(known) or (known.max(axis=0) <= known.min(axis=0)).any():
        raise DataError("bad annotation: too few landmarks to tell where the object is")
    (x0, y0), (x1, y1) = known.min(axis=0), known.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
