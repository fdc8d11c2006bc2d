"""The file of labels that the page writes: COCO keypoints, which `labels.reading` reads and `kplm adapt` takes.

    <folder>/labels.json        images, annotations, and one category with the names of the points
    <folder>/images/            the labelled crops of a dataset; image files stay where they are

The file is written as a whole after each change, atomically. What it has beside our images is kept. An annotation has no
`bbox`: the object is looked for in the whole image, as the page showed it. Predictions, which `kplm suggest` writes into such
files, are no labels: they leave the file when it is written.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_kplm.datasets.file_kinds import SIGNATURE_BYTES, kind_of_content
from ray_kplm.errors import ConfigError, DataError, RunError
from ray_kplm.labels.coco_entries import category_entry, image_entry
from ray_kplm.methods.visibility import ABSENT
from ray_kplm.storage import Folder
from ray_kplm.view.gallery import Gallery
from ray_kplm.view.label_points import Point, check_names

_PREDICTED = ("score", "confidence", "probability")
"""Fields of an annotation that only predictions have."""


class ConflictError(RunError):
    """Another page or program changed what is to be saved."""


@dataclass(frozen=True)
class Label:
    """The points of an image that was labelled.

    Attributes:
        points: One for each name; None: not there.
        revision: Changes with each change.
    """

    points: tuple[Point | None, ...]
    revision: str

    def to_dict(self) -> dict[str, Any]:
        """Return the label as the page takes it."""
        return {"points": self.points, "revision": self.revision}


class LabelFile:
    """Labels of a gallery in a file; all methods may be called in any thread."""

    def __init__(self, path: str, gallery: Gallery) -> None:
        """Read the file if it exists.

        Raises:
            DataError: It is no COCO keypoints file with one list of points.
        """
        at = Folder.at(path)
        self.folder, self.name, self.path = at.parent, at.name, path
        self._gallery, self._lock = gallery, threading.RLock()
        self.names: tuple[str, ...] = ()
        self.labels: dict[int, Label] = {}
        self._plain: dict[str, Any] = {}
        self._hash = ""
        self._number_of = {self._named(index): index for index in range(len(gallery.items))}
        self._load()

    def _load(self) -> None:
        """Take what the file says."""
        content = self.folder.read_bytes(self.name) if self.folder.is_file(self.name) else b""
        self._hash, self.labels, self.names = hashlib.sha256(content).hexdigest(), {}, ()
        self._plain = _parsed(content, self.path) if content else {}
        for key in ("images", "annotations", "categories"):
            self._plain.setdefault(key, [])
        categories = [one for one in self._plain["categories"] if one.get("keypoints")]
        if len(categories) > 1:
            raise DataError(f"{self.path}: has {len(categories)} categories with keypoints; name a file of one")
        self._category: dict[str, Any] = categories[0] if categories else category_entry("object", (), ())
        if not categories:
            self._plain["categories"].append(self._category)
        self.names = tuple(map(str, self._category["keypoints"]))
        self._index_labels()

    def _index_labels(self) -> None:
        image_of = {one.get("id"): self._number_of.get(self._key(_file_name(one))) for one in self._plain["images"]}
        for one in self._plain["annotations"]:
            index = image_of.get(one.get("image_id"))
            flat = one.get("keypoints")
            if (
                index is not None
                and not _is_predicted(one)
                and isinstance(flat, list)
                and len(flat) == 3 * len(self.names)
            ):
                self.labels[index] = _label(flat)

    def _named(self, index: int) -> str:
        """Return the `_key` of an image of the gallery."""
        return self._place(self._gallery.file_name(index, self.folder))

    def _key(self, file: str) -> str:
        """Return what tells an image from others, whatever the way in which a file names it."""
        return self._place(posixpath.splitext(file)[0] if self._gallery.is_copied else file)

    def _place(self, file: str) -> str:
        return file if "://" in file else posixpath.normpath(posixpath.join(self.folder.path, file))

    def set_names(self, names: Sequence[str], known: Sequence[str], renamed: dict[str, str] | None = None) -> None:
        """Change which points are labelled; those that keep their names keep their places.

        Args:
            names: Of the points.
            known: What the page took them for until now.
            renamed: New names of points that keep their places under these.

        Raises:
            ConfigError: These are no names.
            ConflictError: They were changed elsewhere.
        """
        chosen = check_names(names)
        with self._changing():
            if tuple(known) != self.names:
                raise ConflictError("the points were changed in another tab: load the page again")
            renamed = renamed or {}
            before = {renamed.get(name, name): number for number, name in enumerate(self.names)}
            where = [before.get(name) for name in chosen]
            for one in self._plain["annotations"]:
                flat = one.get("keypoints")
                if isinstance(flat, list) and len(flat) == 3 * len(self.names):
                    triples = [[0, 0, 0] if k is None else flat[3 * k : 3 * k + 3] for k in where]
                    one["keypoints"] = [value for triple in triples for value in triple]
                    one["num_keypoints"] = sum(triple[2] > 0 for triple in triples)
            old_edges = self._category.get("skeleton") or []
            now = {k + 1: n + 1 for n, k in enumerate(where) if k is not None}
            self._category["skeleton"] = [[now[a], now[b]] for a, b in old_edges if a in now and b in now]
            self._category["keypoints"] = list(chosen)
            self._write()

    def save(self, index: int, points: Sequence[Point | None], names: Sequence[str], revision: str | None) -> Label:
        """Save the label of an image.

        Args:
            index: Of the image in the gallery.
            points: One for each name.
            names: Of the points; the file's own, if it has some.
            revision: Of the label that this one replaces; None: there is none.

        Raises:
            ConfigError: The points do not fit the names.
            ConflictError: The label or the names were changed elsewhere.
        """
        chosen = check_names(names)
        if len(points) != len(chosen):
            raise ConfigError(f"{len(points)} points for {len(chosen)} names: give one for each")
        with self._changing():
            if self.names and self.names != chosen:
                raise ConflictError("the points were changed in another tab: load the page again")
            self._check_revision(index, revision)
            self._category["keypoints"] = list(chosen)
            name, content = self._gallery.file_name(index, self.folder), self._gallery.stored(index)
            if self._gallery.is_copied and content is not None:
                name += kind_of_content(content[:SIGNATURE_BYTES]) or ".jpg"
                if not self.folder.is_file(name):
                    self.folder.write_bytes(name, content)
            self._put(index, name, points)
            self._write()
            return self.labels[index]

    def remove(self, index: int, revision: str | None) -> None:
        """Remove the label of an image; its crop stays. Raises ConflictError if it was changed elsewhere."""
        with self._changing():
            self._check_revision(index, revision)
            ids = self._image_ids(index)
            self._plain["annotations"] = [one for one in self._plain["annotations"] if one.get("image_id") not in ids]
            self._plain["images"] = [one for one in self._plain["images"] if one.get("id") not in ids]
            self._write()

    def _changing(self) -> _Changing:
        return _Changing(self)

    def _check_revision(self, index: int, revision: str | None) -> None:
        known = self.labels.get(index)
        if (known.revision if known else None) != revision:
            raise ConflictError(
                "this image was labelled in another tab: look at that label, and save again to replace it"
            )

    def _image_ids(self, index: int) -> set[Any]:
        named = self._named(index)
        return {one.get("id") for one in self._plain["images"] if self._key(_file_name(one)) == named}

    def _put(self, index: int, file: str, points: Sequence[Point | None]) -> None:
        ids = self._image_ids(index)
        image_id = next(iter(ids), None)
        if image_id is None:
            image_id = _next_id(self._plain["images"])
            height, width = self._gallery.rgb(index).shape[:2]
            item = self._gallery.items[index]
            facts = {"dataset_image": item.name, "split": item.split} if item.split else {}
            self._plain["images"].append(image_entry(image_id, file, width, height) | facts)
        flat = [value for point in points for value in _triple(point)]
        annotation = next((one for one in self._plain["annotations"] if one.get("image_id") in ids), None)
        if annotation is None:
            annotation = {"id": _next_id(self._plain["annotations"]), "image_id": image_id}
            self._plain["annotations"].append(annotation)
        for of_other_points in ("bbox", "area", "segmentation", *_PREDICTED):
            annotation.pop(of_other_points, None)
        annotation |= {
            "category_id": self._category["id"],
            "keypoints": flat,
            "num_keypoints": sum(point is not None for point in points),
            "iscrowd": 0,
        }

    def _write(self) -> None:
        self._plain["annotations"] = [one for one in self._plain["annotations"] if not _is_predicted(one)]
        content = (json.dumps(self._plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self.folder.write_bytes(self.name, content)
        self._hash = hashlib.sha256(content).hexdigest()
        self.names, self.labels = tuple(self._category["keypoints"]), {}
        self._index_labels()


class _Changing:
    """A change of a file: nobody else changes it meanwhile, and a change that fails leaves what was read."""

    def __init__(self, file: LabelFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        file = self._file
        file._lock.acquire()
        content = file.folder.read_bytes(file.name) if file.folder.is_file(file.name) else b""
        if hashlib.sha256(content).hexdigest() != file._hash:
            file._lock.release()
            raise ConflictError(f"{file.path} was changed by another program: start `kplm view` again")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._file._load()
        finally:
            self._file._lock.release()


def _parsed(content: bytes, path: str) -> dict[str, Any]:
    try:
        plain = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error}); name another file of labels, or restore this one") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(plain, dict) or not all(
        isinstance(plain.get(key, []), list) and all(isinstance(one, dict) for one in plain.get(key, []))
        for key in lists
    ):
        raise DataError(f"{path}: is no file of COCO keypoints ({', '.join(lists)}); name another file of labels")
    return plain


def _is_predicted(annotation: dict[str, Any]) -> bool:
    return any(name in annotation for name in _PREDICTED)


def _triple(point: Point | None) -> tuple[float, float, int]:
    return (0, 0, ABSENT) if point is None else (round(point[0], 3), round(point[1], 3), point[2])


def _label(flat: list[Any]) -> Label:
    triples = [flat[k : k + 3] for k in range(0, len(flat), 3)]
    points = tuple(
        None if v == ABSENT or not all(isinstance(z, (int, float)) for z in (x, y)) else (x, y, v)
        for x, y, v in triples
    )
    return Label(points, hashlib.sha256(json.dumps(flat).encode()).hexdigest()[:16])


def _file_name(row: dict[str, Any]) -> str:
    return str(row.get("file_name", ""))


def _next_id(rows: list[dict[str, Any]]) -> int:
    return max((one["id"] for one in rows if isinstance(one.get("id"), int)), default=0) + 1
