"""When images were made, and since when they differ from those of a training."""

from __future__ import annotations

import datetime
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PILImage

from ray_kplm.analysis.drift_choices import AUTO, EXIF, FRAME, MTIME, NAME, NO_TIME
from ray_kplm.datasets.chosen_files import expanded
from ray_kplm.screening.change_point import LEAST, change_point
from ray_kplm.screening.drift import Drift
from ray_kplm.screening.drift_statistics import NAMES
from ray_kplm.screening.two_sample import ALARM
from ray_kplm.storage import Folder

_MOST = 0.8
"""Share of the images that have a time if the time is used."""
_EXIF_FORM = "%Y:%m:%d %H:%M:%S"


@dataclass(frozen=True, eq=False)
class Times:
    """The order of some images in time.

    Attributes:
        kind: One of `drift_choices.TIMES` that says so.
        order: (t,), indices of the images that have a time, in order of time.
        labels: Text of the time of each of these.
    """

    kind: str
    order: NDArray[np.int64]
    labels: list[str]


@dataclass(frozen=True)
class Since:
    """When a series of images began to differ from the training.

    Attributes:
        kind: What says when an image was made.
        label: When: the time of the first image after the change; None if there is no change, so that all are alike.
        image: Index of this image.
        before: Number of images before the change.
        after: Number of images from there on.
        levels: Mean deviation from the training before and after, in standard deviations of training images.
        p: Probability of so clear a change by chance.
    """

    kind: str
    label: str | None
    image: int | None
    before: int
    after: int
    levels: tuple[float, float]
    p: float


def times_of(new: pa.Table, sources: Sequence[str], kind: str) -> Times | None:
    """Return when images were made; None if it is not known.

    Args:
        new: The images, `drift_measures.SCHEMA`.
        sources: Where they are from, as the user named them.
        kind: One of `drift_choices.TIMES`. NAME: the order of the names, in which numbers count as such.
    """
    if kind == NO_TIME:
        return None
    ids, videos, frames = (new[name].to_pylist() for name in ("image_id", "group", "frame"))
    if kind == NAME:
        return _ordered(NAME, [_natural(name) for name in ids], ids)
    is_video = [frame is not None for frame in frames]
    if all(is_video) and (kind == FRAME or (kind == AUTO and len(set(videos)) == 1)):
        keys = [(_natural(video or ""), frame) for video, frame in zip(videos, frames, strict=True)]
        one = len(set(videos)) == 1
        return _ordered(
            FRAME, keys, [f"frame {f}" if one else f"{v}, frame {f}" for v, f in zip(videos, frames, strict=True)]
        )
    if any(is_video) or kind == FRAME:
        return None
    folder = _folder_of(sources)
    if folder is None:
        return None
    paths = [re.sub(r"#\d+$", "", name) for name in ids]
    made = [_modified(folder, path) if kind == MTIME else _taken(folder, path) for path in paths]
    if sum(one is not None for one in made) < _MOST * len(made):
        return None
    return _ordered(MTIME if kind == MTIME else EXIF, made, [str(one) for one in made])


def since_when(found: Drift, times: Times, seed: int) -> Since | None:
    """Return when images began to differ from the training; None if they do not, or are too few.

    The series is the mean deviation in the statistics whose means have changed significantly, or how unusual each image is.
    """
    if not found.is_drift or len(times.order) < LEAST:
        return None
    chosen = [change for change in found.significant if change.size_of_shift > 1]
    if chosen:
        columns = [NAMES.index(change.statistic.name) for change in chosen]
        signs = np.sign([change.shift for change in chosen])
        series = (found.scores[:, columns] * signs).mean(axis=1)[times.order]
    else:
        series = np.log(found.score[times.order] + 0.1)
    change = change_point(series, seed)
    if change is None:
        return None
    count = len(series)
    if change.p > ALARM or change.after <= change.before:
        return Since(times.kind, None, None, 0, count, (float(series.mean()),) * 2, change.p)
    levels = (change.before, change.after)
    image = int(times.order[change.at])
    return Since(times.kind, times.labels[change.at], image, change.at, count - change.at, levels, change.p)


def _ordered(kind: str, keys: Sequence[Any], labels: Sequence[str]) -> Times:
    known = [index for index, key in enumerate(keys) if key is not None]
    order = sorted(known, key=lambda index: keys[index])
    return Times(kind, np.array(order, np.int64), [labels[index] for index in order])


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts the numbers in names as numbers."""
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", name) if piece]


def _folder_of(sources: Sequence[str]) -> Folder | None:
    """Return the folder below which the images have their names; None if they are not files in folders."""
    places = [Folder.at(name) for one in sources for name in expanded(one)]
    if any(place.name.endswith(".parquet") for place in places):
        return None
    if len(places) == 1 and places[0].is_folder():
        return places[0]
    return Folder(places[0].filesystem, posixpath.commonpath([place.parent.path for place in places]) or "/")


def _modified(folder: Folder, path: str) -> datetime.datetime | None:
    made = folder.filesystem.get_file_info(f"{folder.path}/{path}").mtime
    return None if made is None else made.astimezone().replace(microsecond=0, tzinfo=None)


def _taken(folder: Folder, path: str) -> datetime.datetime | None:
    """Return when a picture was taken by its EXIF, of which only the head of the file is read; None if it does not say."""
    try:
        with folder.filesystem.open_input_file(f"{folder.path}/{path}") as file, PILImage.open(file) as picture:
            exif = picture.getexif()
            stated = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(
                ExifTags.Base.DateTime
            )
        return datetime.datetime.strptime(str(stated), _EXIF_FORM) if stated else None
    except Exception:  # of damaged metadata, or of a file that is no picture; it is no fault of the picture
        return None
