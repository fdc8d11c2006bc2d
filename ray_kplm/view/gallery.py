"""The images that the page shows: those of a dataset, or of files. An image is read when it is asked for."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.datasets.chosen_files import expanded
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.file_kinds import extension_of, is_picture
from ray_kplm.datasets.given_images import rgb_of
from ray_kplm.datasets.image_io import decode_image_file, full_window, network_input, read_image_bytes
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.datasets.source_files import list_files
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox
from ray_kplm.run import MANIFEST
from ray_kplm.storage import Folder

_PARTS_HELD = 4
"""Parts of a dataset whose images are in memory."""
_SPLITS = ("test", "train")
"""Order of the splits: test images first, as pictures and reports have them."""
_LONGEST_NAME = 80


class Item(NamedTuple):
    """An image of the gallery, as it is listed.

    Attributes:
        name: For people; that of a dataset's image is unique.
        split: Of a dataset; empty for files.
        width: Pixels; 0: known when the image is read.
        height: Pixels.
    """

    name: str
    split: str = ""
    width: int = 0
    height: int = 0


class Seen(NamedTuple):
    """An image as the network sees it.

    Attributes:
        view: uint8 (S, S, 3).
        to_picture: The map of points of the view to the picture.
        box: float32 (4,), the object in the view; NaN: not known.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
    """

    view: NDArray[np.uint8]
    to_picture: coordinates.Affine
    box: NDArray[np.float32]
    width: int
    height: int


class Gallery(Protocol):
    """Images in a fixed order. Points are in pixels of the upright picture, with pixel centres at integers.

    Attributes:
        title: What is shown, for people.
        items: The images.
        left_out: Number of images beyond the limit.
    """

    title: str
    items: list[Item]
    left_out: int

    @property
    def is_copied(self) -> bool:
        """Whether labelled images are copied beside the file of labels, as they have no files of their own."""
        ...

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """Return a picture (H, W, 3). Raises DataError if it cannot be read."""
        ...

    def see(self, index: int, size: int) -> Seen:
        """Return an image for a network of `size` pixels a side. Raises DataError if it cannot be read."""
        ...

    def stored(self, index: int) -> bytes | None:
        """Return an image as a browser shows it, JPEG or PNG, if it is there in this form; None if it must be encoded."""
        ...

    def file_name(self, index: int, beside: Folder) -> str:
        """Return how a file in the folder `beside` names the image; without an extension if the image is copied there."""
        ...


class DatasetGallery:
    """The stored crops of a dataset, or of one split of it."""

    def __init__(self, dataset: Dataset, split: str | None, most: int) -> None:
        """List the first `most` images. Raises DataError if there is no such split."""
        known = [name for name in _SPLITS if name in dataset.manifest["splits"]]
        known += [name for name in dataset.manifest["splits"] if name not in known]
        chosen = [split] if split else known
        self.dataset, self.title = dataset, str(dataset.meta.get("name") or dataset.root.name)
        self.items: list[Item] = []
        self._places: list[tuple[str, str, int]] = []
        self._rows: dict[tuple[str, str], int] = {}
        total = sum(dataset.count(name) for name in chosen)
        for name in chosen:
            for part in dataset.parts(name):
                if len(self.items) < most:
                    self._list(name, part)
        del self.items[most:], self._places[most:]
        self.left_out = total - len(self.items)
        self._parts: OrderedDict[tuple[str, str], pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def _list(self, split: str, part: str) -> None:
        table = self.dataset.images(split).unchecked.read_table(part, ["image_id", "width", "height"])
        self._rows[split, part] = table.num_rows
        for row, one in enumerate(table.to_pylist()):
            self.items.append(Item(one["image_id"], split, one["width"], one["height"]))
            self._places.append((split, part, row))

    @property
    def is_copied(self) -> bool:
        """Whether labelled images are copied: crops are."""
        return True

    def part_of(self, index: int) -> tuple[str, str, range]:
        """Return the split and the part that an image is in, and the images of the gallery that are in it."""
        split, part, row = self._places[index]
        first = index - row
        return split, part, range(first, min(first + self._rows[split, part], len(self.items)))

    def _row(self, index: int) -> dict[str, Any]:
        split, part, row = self._places[index]
        with self._lock:
            table = self._parts.pop((split, part), None)
            if table is None:
                table = self.dataset.images(split).read_table(part, ["image", "box"])
            self._parts[split, part] = table
            while len(self._parts) > _PARTS_HELD:
                self._parts.popitem(last=False)
        return {name: table[name][row].as_py() for name in ("image", "box")}

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """Return a picture: see `Gallery`."""
        return rgb_of(self._row(index)["image"])

    def see(self, index: int, size: int) -> Seen:
        """Return an image as the network sees it: see `Gallery`."""
        row = self._row(index)
        rgb = rgb_of(row["image"])
        view, to_view = letterbox(rgb, size)
        box = np.full(4, np.nan, np.float32)
        if row["box"] is not None:
            box = coordinates.apply(to_view, np.reshape(row["box"], (2, 2))).astype(np.float32).ravel()
        return Seen(view, coordinates.invert(to_view), box, rgb.shape[1], rgb.shape[0])

    def stored(self, index: int) -> bytes | None:
        """Return the stored crop: see `Gallery`."""
        content: bytes = self._row(index)["image"]
        return content

    def file_name(self, index: int, beside: Folder) -> str:
        """Return the name that the crop has in the folder `images`: see `Gallery`."""
        return f"images/{file_name_of(self.items[index].name)}"


class FileGallery:
    """Image files as they are, of folders, by their names, or by patterns."""

    def __init__(self, names: Sequence[str], most: int, limits: Limits = DEFAULT_LIMITS) -> None:
        """List the first `most` images.

        Raises:
            DataError: There are none, or a name is that of nothing.
        """
        self._files: list[tuple[Folder, str]] = []
        self._limits, found = limits, list[tuple[Folder, str, str]]()
        for name in dict.fromkeys(one for given in names for one in expanded(given)):
            at = Folder.at(name)
            if at.parent.is_file(at.name):
                found.append((at.parent, at.name, at.name))
            elif at.is_folder():
                paths = [file.path for file in list_files(at).files if is_picture(extension_of(file.path))]
                prefix = f"{at.name}/" if len(names) > 1 else ""
                found += [(at, path, prefix + path) for path in paths]
            else:
                raise DataError(f"{name}: no such file or folder")
        if not found:
            raise DataError(f"{', '.join(names[:3])}: no image found; give a folder of images, or image files")
        self.title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        self.items = [Item(label) for _, _, label in found[:most]]
        self._files = [(folder, path) for folder, path, _ in found[:most]]
        self.left_out = len(found) - len(self.items)

    @property
    def is_copied(self) -> bool:
        """Whether labelled images are copied: files stay where they are."""
        return False

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """Return a picture: see `Gallery`."""
        folder, path = self._files[index]
        return decode_image_file(read_image_bytes(folder, path, self._limits), self._limits).rgb

    def see(self, index: int, size: int) -> Seen:
        """Return an image as the network sees it: see `Gallery`."""
        rgb = self.rgb(index)
        view, to_picture = network_input(rgb, full_window(rgb), size)
        return Seen(view, to_picture, np.full(4, np.nan, np.float32), rgb.shape[1], rgb.shape[0])

    def stored(self, index: int) -> bytes | None:
        """Return None, as files may be of any kind and size, and turned by their EXIF."""
        return None

    def file_name(self, index: int, beside: Folder) -> str:
        """Return the path of the file relative to the folder, or its own path on another storage: see `Gallery`."""
        folder, path = self._files[index]
        at = folder / path
        return posixpath.relpath(at.path, beside.path) if folder.filesystem == beside.filesystem else str(at)


def open_gallery(images: Sequence[str], split: str | None, most: int) -> DatasetGallery | FileGallery:
    """Return the images that a command names: one dataset, or files and folders of images.

    Args:
        images: Names of them.
        split: Of the dataset; None: all.
        most: Images at most.

    Raises:
        DataError: There are none.
    """
    at = Folder.at(images[0])
    if len(images) == 1 and at.is_file(MANIFEST):
        return DatasetGallery(Dataset.open(at), split, most)
    if split:
        raise DataError(f"--split {split}: applies to a dataset made by `kplm ingest`; leave it out for image files")
    return FileGallery(list(map(os.fspath, images)), most)


def file_name_of(name: str) -> str:
    """Return a file name for a crop of a dataset, without extension: of safe characters, different for different names."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", posixpath.splitext(name)[0]).strip("_")[-_LONGEST_NAME:]
    return f"{stem or 'image'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
