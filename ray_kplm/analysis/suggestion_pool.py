"""The images that a user may label: those that a run was trained on, or new ones."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.datasets import file_kinds
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.image_io import decode_image_file, encode_jpeg, full_window, network_input, read_image_bytes
from ray_kplm.datasets.source_files import list_files
from ray_kplm.errors import DataError
from ray_kplm.methods.inputs import read_inputs
from ray_kplm.schemas import TRAIN
from ray_kplm.storage import Folder

_KINDS = {b"\xff\xd8\xff": (".jpg", ".jpeg"), b"\x89PN": (".png",)}
"""First bytes of the files that every tool opens, and their extensions; the first one is given to a name without any."""
_UNSAFE = re.compile(r"[^\w./ +()-]")


class Batch(NamedTuple):
    """Some images as the network sees them.

    Attributes:
        rows: (B,), which of the pool's images they are.
        images: (B, S, S, 3).
        boxes: (B, 4), x0, y0, x1, y1 of the object in the input frame; NaN where no box is known.
    """

    rows: NDArray[np.int64]
    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]


class ImageFile(NamedTuple):
    """An image as a file that any tool opens: a path for it, and its content."""

    path: str
    content: bytes


class Pool(Protocol):
    """Images to choose from."""

    names: list[str]
    """Their ids: paths below a folder of images, or those of the dataset."""
    rejected: list[tuple[str, str]]
    """Images that could not be used, with the reason."""

    def batches(self, rows: NDArray[np.int64], config: Config) -> Iterator[Batch]:
        """Yield some images, ascending rows, without those that cannot be used."""
        ...

    def file(self, row: int) -> ImageFile:
        """Return an image as a file."""
        ...


class DatasetPool:
    """The images of a split, by default those that a run was trained on, as they are stored."""

    def __init__(self, dataset: Dataset, split: str = TRAIN) -> None:
        """Read the names of the images. Raises DataError if there are none."""
        self._images, self._parts, self.rejected = dataset.images(split), dataset.parts(split), list[tuple[str, str]]()
        tables = self._images.read_tables(self._parts, ["image_id"])
        self.names = [name for table in tables for name in table["image_id"].to_pylist()]
        self._starts = np.cumsum([0, *dataset.rows(split)])
        if not self.names:
            raise DataError(f"{dataset.root}: has no {split} images; name a folder of images by --images")

    def batches(self, rows: NDArray[np.int64], config: Config) -> Iterator[Batch]:
        """See `Pool`."""
        for number, part in enumerate(self._parts):
            first, last = self._starts[number : number + 2]
            inside = rows[(rows >= first) & (rows < last)] - first
            start = 0
            for images, _, ids, boxes in read_inputs(self._images, part, inside, config) if len(inside) else ():
                yield Batch(first + inside[start : start + len(ids)], images, boxes)
                start += len(ids)

    def file(self, row: int) -> ImageFile:
        """See `Pool`."""
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        table = self._images.read_table(self._parts[part], ["image"])
        content: bytes = table["image"][row - int(self._starts[part])].as_py()
        return _as_file(self.names[row], content)


class FolderPool:
    """The pictures below a folder. The object must fill them as it did in training."""

    def __init__(self, uri: str) -> None:
        """List the folder. Raises DataError if it has no picture."""
        self._folder, self.rejected = Folder.at(uri), list[tuple[str, str]]()
        files = list_files(self._folder).files
        self.names = [file.path for file in files if file_kinds.is_picture(file_kinds.extension_of(file.path))]
        if not self.names:
            raise DataError(f"{uri}: has no pictures; name a folder with some by --images")

    def batches(self, rows: NDArray[np.int64], config: Config) -> Iterator[Batch]:
        """See `Pool`."""
        size, batch = config.network.image_size, config.compute.batch_images
        for start in range(0, len(rows), batch):
            kept, images = list[int](), list[NDArray[np.uint8]]()
            for row in rows[start : start + batch].tolist():
                try:
                    rgb = decode_image_file(read_image_bytes(self._folder, self.names[row])).rgb
                except DataError as error:
                    self.rejected.append((self.names[row], str(error)))
                    continue
                kept.append(row)
                images.append(network_input(rgb, full_window(rgb), size)[0])
            if kept:
                yield Batch(np.array(kept), np.stack(images), np.full((len(kept), 4), np.nan, np.float32))

    def file(self, row: int) -> ImageFile:
        """See `Pool`. Files that are no JPEG or PNG, and pictures that are turned by their EXIF, are written anew."""
        picture = decode_image_file(read_image_bytes(self._folder, self.names[row]))
        return _as_file(self.names[row], picture.content if picture.plain else encode_jpeg(picture.rgb))


def file_path(name: str, extensions: tuple[str, ...]) -> str:
    """Return the path under which an image of this id is written: without signs that a file system or URL takes for others.

    It has one of the extensions of its kind, the first one unless the name ends in another.
    """
    plain = _UNSAFE.sub("_", posixpath.normpath(name.replace("\\", "/")))
    plain = "/".join(part for part in plain.split("/") if part not in ("", ".", ".."))
    return plain if plain.lower().endswith(extensions) else plain + extensions[0]


def file_paths(name: str) -> set[str]:
    """Return the paths under which an image of this id may have been written."""
    return {file_path(name, extensions) for extensions in _KINDS.values()}


def _as_file(name: str, content: bytes) -> ImageFile:
    extensions = next((known for start, known in _KINDS.items() if content.startswith(start)), (".jpg", ".png"))
    return ImageFile(file_path(name, extensions), content)
