"""AFLW: faces in the wild with up to 21 landmarks, annotated where visible (Koestinger et al. 2011).

The authors' layout (their database tool's queries, e.g. FaceRectsByFaceIDQuery.cpp, and the list of tables of 2012-11-28):

    aflw/data/aflw.sqlite                     Faces(face_id, file_id), FaceImages(file_id, filepath, ...),
                                              FaceRect(face_id, x, y, w, h, annot_type_id),
                                              FacePose(face_id, roll, pitch, yaw: radians),
                                              FeatureCoords(face_id, feature_id, x, y), FeatureCoordTypes(feature_id, descr)
    aflw/data/flickr/0/image00002.jpg ...     and 2, 3

Split (thesis 2.7: "10,112 training images and 2,991 test images"): the lists of Zhang et al. 2018, aflw_train_images.txt and
aflw_test_images.txt. Their names are like image00597_55319.jpg; the number after the last underscore is AFLW's face_id. Faces
in neither list are left out; a face that a list repeats is used once.

Box: FaceRect, the authors' own. Landmarks not annotated are NaN. Attributes: yaw, pitch, roll in degrees.
FaceImages has the size of each picture; one that was scaled is read, and one of another shape is rejected.
"""

from __future__ import annotations

import math
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Box, Sample
from ray_kplm.datasets.readers.layout import Distribution, Layout, interlandmark_distance
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

AFLW = Distribution(
    "AFLW",
    "https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw/",
    "on request, non-commercial research only",
)
LISTS = Distribution(
    "the lists of Zhang et al. 2018 (aflw_data.tar.gz)",
    "http://files.ytzhang.net/lmdis-rep/release-v1/aflw/aflw_data.tar.gz",
    "research, as AFLW",
)
FEATURES = (
    "LeftBrowLeftCorner",
    "LeftBrowCenter",
    "LeftBrowRightCorner",
    "RightBrowLeftCorner",
    "RightBrowCenter",
    "RightBrowRightCorner",
    "LeftEyeLeftCorner",
    "LeftEyeCenter",
    "LeftEyeRightCorner",
    "RightEyeLeftCorner",
    "RightEyeCenter",
    "RightEyeRightCorner",
    "LeftEar",
    "NoseLeft",
    "NoseCenter",
    "NoseRight",
    "RightEar",
    "MouthLeftCorner",
    "MouthCenter",
    "MouthRightCorner",
    "ChinCenter",
)
"""The 21 annotated landmarks by FeatureCoordTypes.descr; the table lists others, which no face has."""
LANDMARKS = tuple(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", feature).lower() for feature in FEATURES)

_FACES = """
    SELECT Faces.face_id, FaceImages.filepath, FaceRect.x, FaceRect.y, FaceRect.w, FaceRect.h,
           {width}, {height}, FacePose.yaw, FacePose.pitch, FacePose.roll
    FROM Faces JOIN FaceImages ON FaceImages.file_id = Faces.file_id
    LEFT JOIN FaceRect ON FaceRect.face_id = Faces.face_id
    LEFT JOIN FacePose ON FacePose.face_id = Faces.face_id
    ORDER BY Faces.face_id, FaceRect.annot_type_id, FacePose.annot_type_id
"""
_POINTS = """
    SELECT face_id, descr, FeatureCoords.x, FeatureCoords.y
    FROM FeatureCoords JOIN FeatureCoordTypes ON FeatureCoordTypes.feature_id = FeatureCoords.feature_id
"""


def list_aflw(source: Folder, options: IngestOptions) -> Listing:
    """List AFLW."""
    layout = Layout(source, AFLW, options)
    database = layout.locate("aflw/data/aflw.sqlite", "data/aflw.sqlite", "aflw.sqlite")
    beside = database.removesuffix("aflw.sqlite")
    folder = layout.locate(f"{beside}flickr", "flickr")
    split_of = _lists(layout)
    layout.files(folder)
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    listed = len(split_of)
    with _opened(layout, database) as rows:
        landmarks = _landmarks(rows)
        for face, path, *values in rows(_faces_query(rows)):
            split = split_of.pop(face, None)  # the first of a face's boxes
            if split is None:
                continue
            try:
                splits[split].append(_sample(face, folder, path, values, landmarks))
            except DataError as error:
                layout.reject(str(face), str(error))
    layout.match("the lists", listed - len(split_of), listed)
    for face in split_of:
        layout.reject(str(face), "missing: a list names the face, and the database has none of this face_id")
    return layout.listing(splits, LANDMARKS, interlandmark_distance(LANDMARKS, "left_eye_center", "right_eye_center"))


def _lists(layout: Layout) -> dict[int, str]:
    """Return the split of each face_id."""
    lists: dict[str, list[int]] = {}
    for split, name in ((TRAIN, "aflw_train_images.txt"), (TEST, "aflw_test_images.txt")):
        path = layout.locate(name, f"aflw_data/{name}", f"aflw_release-2/{name}", origin=LISTS)
        images = layout.names(path)
        found = {image: re.search(r"_(\d+)\.\w+$", image) for image in images}
        odd = [image for image, number in found.items() if number is None]
        if odd and len(odd) == len(found):
            raise DataError(f"{layout.source}/{path}: {odd[0]!r} names no face_id, as image00597_55319.jpg does")
        for image in odd:
            layout.reject(f"{path}: {image}", "bad name: it names no face_id, as image00597_55319.jpg does")
        lists[split] = [int(number.group(1)) for number in found.values() if number is not None]
    return layout.splits_of(lists)


def _sample(
    face: int, folder: str, path: Any, values: Sequence[Any], landmarks: dict[int, NDArray[np.float64]]
) -> Sample:
    """Return a face, or raise DataError.

    Args:
        face: Its face_id.
        folder: Of the pictures.
        path: Of its picture, below it.
        values: x, y, w, h of its box, width and height of its picture, yaw, pitch and roll.
        landmarks: Of each face_id.
    """
    x, y, w, h, *others = values
    if x is None:
        raise DataError("no box")
    if face not in landmarks:
        raise DataError("no landmarks")
    try:
        box: Box = (float(x), float(y), float(x) + float(w), float(y) + float(h))
        size = (int(others[0]), int(others[1])) if others[0] and others[1] else None
        angles = zip(("yaw", "pitch", "roll"), others[2:], strict=True)
        degrees = {name: math.degrees(angle) for name, angle in angles if angle is not None}
    except (TypeError, ValueError) as error:
        raise DataError(f"bad annotation: {error}") from None
    annotation = {**degrees, "landmarks": landmarks[face], "group": str(path)}
    return Sample(str(face), f"{folder}/{path}", box, annotation=annotation, size=size)


_LOGGED = b"\2\2"
"""Bytes 18 and 19 of a database with a write-ahead log."""

Query = Callable[[str], Iterable[tuple[Any, ...]]]


@contextmanager
def _opened(layout: Layout, path: str) -> Iterator[Query]:
    """Open the database for queries within the context.

    A tool may have left it in the mode of a write-ahead log, which cannot be read in memory. What such a log still holds is
    part of the database, so both are copied.
    """
    content = layout.read(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "aflw.sqlite"
        copy.write_bytes(content)
        if content[18:20] == _LOGGED and layout.source.is_file(f"{path}-wal"):
            copy.with_name("aflw.sqlite-wal").write_bytes(layout.read(f"{path}-wal"))
        try:
            with closing(sqlite3.connect(copy)) as connection:
                connection.text_factory = lambda text: text.decode(errors="replace")
                yield connection.execute
        except sqlite3.Error as error:
            raise DataError(f"{layout.source}/{path} is no database of AFLW: {error}; download it again") from None


def _faces_query(rows: Query) -> str:
    """Return the query of the faces; the database may lack the sizes of the pictures."""
    known = {name for _, name, *_ in rows("PRAGMA table_info(FaceImages)")}
    sizes = {name: f"FaceImages.{name}" if name in known else "NULL" for name in ("width", "height")}
    return _FACES.format(**sizes)


def _landmarks(rows: Query) -> dict[int, NDArray[np.float64]]:
    """Return the landmarks (21, 2) of each face_id, NaN where not annotated."""
    places = {feature: index for index, feature in enumerate(FEATURES)}
    landmarks: dict[int, NDArray[np.float64]] = {}
    for face, feature, x, y in rows(_POINTS):
        if feature in places and isinstance(x, (int, float)) and isinstance(y, (int, float)):
            landmarks.setdefault(face, np.full((len(FEATURES), 2), np.nan))[places[feature]] = x, y
    return landmarks
