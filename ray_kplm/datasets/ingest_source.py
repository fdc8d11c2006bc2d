"""Samples, pictures of one object with its annotation, and the reader that builds parts of a dataset from them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets import file_kinds, image_io
from ray_kplm.datasets.dataset import IngestOptions, PartBuilder, PartTables
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1, source frame."""


class Sample(NamedTuple):
    """An entry of a listing: one object in one picture. All coordinates are in the source frame.

    Attributes:
        image_id: Unique in the dataset.
        path: The picture or the video, below the source folder.
        box: Of the object.
        window: The crop is around this rectangle. None: around the box, or the whole picture if there is no box.
        annotation: landmarks (L, 2), visible (L,), group, and numbers, which become attributes.
        frame: The sequence of a video's frame, and its time there.
        mirrored: Whether the crop is stored as its mirror image.
        size: Width and height of the picture that box, window and landmarks are of, pixels; None: not known. They are scaled
            to a picture of the same shape and refused for another one.
    """

    image_id: str
    path: str
    box: Box | None = None
    window: Box | None = None
    annotation: dict[str, Any] | None = None
    frame: tuple[str, int] | None = None
    mirrored: bool = False
    size: tuple[int, int] | None = None


OpenedPicture = tuple[bytes, image_io.Picture]
"""The encoded file, or b"" for a frame of a video, and the picture."""
Opener = Callable[[Folder, str, Sequence[Sample]], Iterator[OpenedPicture | DataError]]
"""Yields the picture of each of the samples at a path of the source, or the reason why this one cannot be used."""
ReadAnnotation = Callable[[Folder, Sample], Sample]
"""Adds the annotation from a sample's own file. It is called when a part is built, so that a listing of many files is fast."""


def open_image(
    source: Folder, path: str, samples: Sequence[Sample], limits: Limits = DEFAULT_LIMITS
) -> Iterator[OpenedPicture]:
    """Read and decode an image file once for all objects in it.

    Raises:
        DataError: The file cannot be read or decoded.
    """
    content = image_io.read_image_bytes(source, path, limits)
    try:
        picture = image_io.decode_image_file(content, limits)
    except DataError as error:
        if str(error) == "not an image" and (kind := file_kinds.what_else(content)):
            raise DataError(f"not an image: {kind}") from None
        raise
    for _ in samples:
        yield content, picture


@dataclass(frozen=True)
class SampleReader:
    """Builds parts of a dataset from samples. A sample that cannot be read is rejected with the reason.

    Attributes:
        source: Folder of the pictures.
        options: How pictures are cropped.
        landmarks: Annotated landmarks of each image; 0: none.
        read_annotation: Adds the annotation from a sample's own file; None: the samples have it already.
        opener: Opens the pictures.
    """

    source: Folder
    options: IngestOptions
    landmarks: int
    read_annotation: ReadAnnotation | None = None
    opener: Opener = open_image

    def read_part(self, entries: Sequence[Sample]) -> PartTables:
        """Return the tables of a part. Successive entries with the same path share one reading of the picture."""
        part = PartBuilder(self.landmarks)
        opener = partial(open_image, limits=self.options.limits) if self.opener is open_image else self.opener
        for path, group in groupby(self._annotated(part, entries), key=attrgetter("path")):
            waiting = deque(group)
            try:
                for opened in opener(self.source, path, tuple(waiting)):
                    sample = waiting.popleft()
                    if isinstance(opened, DataError):
                        part.reject(sample.image_id, str(opened))
                    else:
                        self._add(part, sample, opened[1])
            except DataError as error:
                for sample in waiting:
                    part.reject(sample.image_id, str(error))
        return part.tables()

    def _annotated(self, part: PartBuilder, entries: Sequence[Sample]) -> Iterator[Sample]:
        """Yield the samples with their annotation; those whose annotation cannot be read are rejected."""
        for sample in entries:
            try:
                yield sample if self.read_annotation is None else self.read_annotation(self.source, sample)
            except DataError as error:
                part.reject(sample.image_id, str(error))

    def _add(self, part: PartBuilder, sample: Sample, picture: image_io.Picture) -> None:
        try:
            add_sample(part, sample, picture, self.options)
        except DataError as error:
            part.reject(sample.image_id, str(error))


def add_sample(part: PartBuilder, sample: Sample, picture: image_io.Picture, options: IngestOptions) -> None:
    """Crop the object and add it to the part. A picture that needs no change is stored as its file has it.

    Raises:
        DataError: The sample cannot be used.
    """
    full = image_io.full_window(picture.rgb)
    sample = _in_picture(part, sample, full)
    around = sample.window or sample.box
    window = full if around is None else image_io.window_around(around, options.margin, full)
    if options.input_size:
        rgb, crop_to_source = image_io.network_input(picture.rgb, window, options.input_size)
    else:
        rgb, crop_to_source = image_io.crop(picture.rgb, window, options.size)
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
    encode = image_io.encode_png if options.input_size else image_io.encode_jpeg
    stored = picture.content if kept and not options.input_size else encode(rgb)
    size = full.width, full.height
    part.add(sample.image_id, stored, rgb, box, crop_to_source, annotation, sample.frame, size)
    for note in picture.notes:
        part.note(sample.image_id, note)


def _in_picture(part: PartBuilder, sample: Sample, picture: image_io.Window) -> Sample:
    """Return a sample with its coordinates scaled from the size that was annotated to that of the picture.

    Raises:
        DataError: The picture has another shape.
    """
    if sample.size is None or sample.size == (picture.width, picture.height):
        return sample
    sizes = list(zip((picture.width, picture.height), sample.size, strict=True))
    text = f"the picture has {picture.width} x {picture.height} px, its annotation is of {sample.size[0]} x {sample.size[1]}"
    if min(sample.size) < 1:
        raise DataError(f"other size: {text}")
    # A picture that was scaled by one factor has sides that differ from the factor by rounding only.
    if max((side - 1) / annotated for side, annotated in sizes) >= min(
        (side + 1) / annotated for side, annotated in sizes
    ):
        raise DataError(f"other size: {text}")
    to_picture = coordinates.scaling(*(side / annotated for side, annotated in sizes))
    part.note(sample.image_id, f"scaled: {text}")
    annotation = sample.annotation
    if annotation is not None and annotation.get("landmarks") is not None and len(annotation["landmarks"]):
        points = np.array(annotation["landmarks"], dtype=np.float64)
        annotation = {**annotation, "landmarks": coordinates.apply(to_picture, points)}
    box, window = (None if of is None else _moved(to_picture, of) for of in (sample.box, sample.window))
    return sample._replace(box=box, window=window, annotation=annotation)


def _moved(affine: coordinates.Affine, box: Box) -> Box:
    x0, y0, x1, y1 = _box_in(affine, box).tolist()
    return x0, y0, x1, y1


def _box_in(source_to_crop: coordinates.Affine, box: Box) -> NDArray[np.float64]:
    """Return the box (4,) in the crop frame; in a mirrored crop its sides are exchanged."""
    corners = coordinates.apply(source_to_crop, np.reshape(box, (2, 2)))
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def box_fault(box: Box) -> str | None:
    """Return the reason, as written to `rejected.parquet`, why four numbers are no box; None for a box."""
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        return "bad box: not four finite numbers"
    return "box without area" if x1 <= x0 or y1 <= y0 else None


def bounding_box(xy: NDArray[Any]) -> Box:
    """Return the bounding box of the annotated points among (L, 2), for data sets without boxes.

    Raises:
        DataError: The points span no area.
    """
    known = xy[np.isfinite(xy).all(axis=1)]
    if not len(known) or (known.max(axis=0) <= known.min(axis=0)).any():
        raise DataError("bad annotation: too few landmarks to tell where the object is")
    (x0, y0), (x1, y1) = known.min(axis=0), known.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
