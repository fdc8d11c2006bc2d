"""The annotated objects of COCO files, joined with their pictures."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from typing import Any, NamedTuple

from ray_kplm.datasets.ingest_source import Sample
from ray_kplm.datasets.readers.coco_pictures import CocoPictures
from ray_kplm.datasets.readers.coco_rows import (
    Categories,
    ObjectRow,
    RowError,
    named,
    read_image,
    read_object,
    row_id,
    rows_of,
    show,
)
from ray_kplm.datasets.readers.layout import Layout


class _Picture(NamedTuple):
    path: str
    size: tuple[int, int] | None


class CocoObjects:
    """Reads the objects of the annotation files of one data set.

    Attributes:
        names: Of the keypoints.
        files_of: The annotation files that have objects of a picture.
        repeats: Number of objects that two files share.
    """

    def __init__(self, layout: Layout, names: tuple[str, ...]) -> None:
        """Begin a data set whose objects have these keypoints."""
        self.names = names
        self.files_of: dict[str, set[str]] = {}
        self.repeats: Counter[tuple[str, str]] = Counter()
        self._layout = layout
        self._objects: Counter[str] = Counter()  # of each picture
        self._file_of: dict[bytes, str] = {}  # of an object, by its digest
        self._left_out: Counter[str] = Counter()

    def left_out(self) -> list[str]:
        """Return a line about the objects that are left out, if there are any."""
        counts = ", ".join(f"{count} {what}" for what, count in self._left_out.items())
        return [f"objects left out: {counts}"] if counts else []

    def read(self, file: str, content: dict[str, Any], categories: Categories) -> list[Sample]:
        """Return the annotated objects of a file."""
        pictures = self._pictures(file, rows_of(content, "images", f"{self._layout.source}/{file}"))
        rows = rows_of(content, "annotations", f"{self._layout.source}/{file}")
        samples, matched = [], 0
        for number, row in enumerate(rows):
            name = named(row, number, "annotations")
            if not isinstance(row, dict):
                self._reject(file, name, RowError(f"it is no object but {show(row)}"))
                continue
            given = row.get("image_id")
            none = RowError(f"images has no id {show(given)}, which is its image_id")
            picture = pictures.get(row_id(given) or "", none)
            matched += isinstance(picture, _Picture)
            sample = self._sample(file, name, row, picture, categories)
            if sample is not None:
                samples.append(sample)
        self._layout.match(f"annotations of {posixpath.basename(file)}", matched, len(rows))
        return samples

    def _pictures(self, file: str, rows: list[Any]) -> dict[str, _Picture | RowError]:
        """Return the picture of each image id, or why there is none."""
        places = CocoPictures(self._layout, file)
        pictures: dict[str, _Picture | RowError] = {}
        found = 0
        for number, row in enumerate(rows):
            name = named(row, number, "images")
            try:
                image = read_image(row)
                picture = _Picture(places.path(image.file_name), image.size)
                found += self._layout.find(picture.path) is not None
                first = pictures.setdefault(image.id, picture)
                if first != picture:
                    raise RowError(f"its id is that of two pictures, one of which is {image.file_name}", "repeated")
            except RowError as error:
                self._reject(file, name, error)
                if (identity := row_id(row.get("id")) if isinstance(row, dict) else None) is not None:
                    pictures[identity] = error
        self._layout.match(f"images of {posixpath.basename(file)}", found, len(rows))
        return pictures

    def _sample(
        self, file: str, name: str, row: dict[str, Any], picture: _Picture | RowError, categories: Categories
    ) -> Sample | None:
        """Return an object as a sample; None if it is left out or rejected."""
        category = row_id(row.get("category_id"))
        if row.get("iscrowd"):
            self._left_out["crowds"] += 1
            return None
        if category in categories.known and category not in categories.with_keypoints:
            self._left_out["of categories without keypoints"] += 1
            return None
        found: ObjectRow | RowError | None
        try:
            if category not in categories.known:
                raise RowError(f"category_id is {show(row.get('category_id'))}, which categories lack")
            found = read_object(row, len(self.names))
        except RowError as error:
            found = error
        if found is None:
            self._left_out["without a labelled keypoint"] += 1
            return None
        if isinstance(picture, RowError):
            self._reject(file, name, RowError(f"no picture: {picture}", "missing"))
            return None
        image_id = f"{picture.path}#{self._objects[picture.path]}"
        self._objects[picture.path] += 1
        if isinstance(found, RowError):
            self._reject(file, name, found, image_id)
            return None
        return self._of_object(file, name, image_id, found, picture)

    def _of_object(self, file: str, name: str, image_id: str, found: ObjectRow, picture: _Picture) -> Sample | None:
        """Return an object as a sample; None if the same one is there already."""
        content = repr((picture.path, found.box)).encode() + found.landmarks.tobytes()
        key = hashlib.sha256(content).digest()[:16]
        first = self._file_of.get(key)
        if first == file:
            self._layout.decided(f"repeated {image_id}")
            self._reject(file, name, RowError("the same object as in an earlier row", "repeated"), image_id)
            return None
        if first is not None:
            self.repeats[first, file] += 1
        self._file_of[key] = file
        self.files_of.setdefault(picture.path, set()).add(file)
        annotation = {"landmarks": found.landmarks, "visible": found.visible, "group": picture.path}
        return Sample(image_id, picture.path, found.box, annotation=annotation, size=picture.size)

    def _reject(self, file: str, name: str, error: RowError, image_id: str | None = None) -> None:
        self._layout.reject(image_id or name, f"{error.kind}: {file}, {name}: {error}")
