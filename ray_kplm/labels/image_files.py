"""Where the images of a file of annotations are: beside it, or below a folder that the user names."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ray_kplm.datasets.source_files import list_files
from ray_kplm.storage import Folder

_ABOVE = 3
"""Folders above the file in which relative paths may begin: `labeled-data/video/img1.png` beside the images has two."""
EXACT = 1 << 16
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/|\w+://")


class FoundImage(NamedTuple):
    """An image of an annotation.

    Attributes:
        uri: A path or URI that can be opened.
        folder: Where it is.
        path: Below the folder.
        matched: How many of the last components of its name its path has; EXACT if it is where its name says.
    """

    uri: str
    folder: Folder
    path: str
    matched: int


class ImageFiles:
    """Finds images by the names that a file of annotations gives them."""

    def __init__(self, labels: str, images: str | None = None) -> None:
        """Look beside a file of annotations and, before that, below a folder of images.

        Raises:
            DataError: A URI names no known kind of storage.
        """
        head, query = _cut(labels)
        self._beside = [f"{head.rpartition('/')[0] or ('/' if head.startswith('/') else '.')}{query}"]
        while len(self._beside) <= _ABOVE and (above := _parent(self._beside[-1])) is not None:
            self._beside.append(above)
        self._images = images
        self.places = ", ".join(filter(None, [images, self._beside[0]]))
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, names: Mapping[str, Sequence[str]]) -> dict[str, FoundImage | str]:
        """Return the image of each name, or the reason why there is none.

        Args:
            names: Names as the file gives them, with the spellings to look for, the likeliest first.
        """
        found = {name: self._one(spellings) for name, spellings in names.items()}
        claims: dict[str, list[str]] = {}
        for name, image in found.items():
            if isinstance(image, FoundImage):
                claims.setdefault(image.uri, []).append(name)
        for uri, claimants in claims.items():
            best = max(one.matched for name in claimants if isinstance(one := found[name], FoundImage))
            fits = [name for name in claimants if isinstance(one := found[name], FoundImage) and one.matched == best]
            if len({_plain(name) for name in fits}) > 1:
                fits = []  # paths in different folders, of which none is this file's
            for name in set(claimants) - set(fits):
                found[name] = f"no such image; {uri} is as much that of {next(n for n in claimants if n != name)}"
        return found

    def _one(self, spellings: Sequence[str]) -> FoundImage | str:
        """Return the image of a name: where its path says, below the given folder or beside the file, else by its end."""
        plain = [_plain(spelling) for spelling in spellings]
        several = ""
        for name in plain if self._images else ():
            by_end = self._by_end(self._images or "", name)
            if isinstance(by_end, FoundImage):
                return by_end
            several = several or by_end
        for name in plain:
            if (exact := self._exact(name)) is not None:
                return exact
        for name in plain if not several else ():
            by_end = self._by_end(self._beside[0], name)
            if isinstance(by_end, FoundImage):
                return by_end
            several = several or by_end
        return several or "no such image"

    def _exact(self, name: str) -> FoundImage | None:
        if _ABSOLUTE.match(name):
            at = Folder.at(name) if name.startswith("/") else None
            is_there = at is not None and at.parent.is_file(at.name)
            return FoundImage(name, at.parent, at.name, EXACT) if at is not None and is_there else None
        for place in self._beside:
            for path in (name, f"images/{name}"):
                if (folder := Folder.at(place)).is_file(path):
                    return FoundImage(_join(place, path), folder, path, EXACT)
        return None

    def _by_end(self, place: str, name: str) -> FoundImage | str:
        """Return the file below a place whose path shares the longest end with a name, or why there is not one."""
        folder = Folder.at(place)
        wanted = _form(name).split("/")
        files = self._files(place, folder).get(wanted[-1], [])
        shared = {path: _shared(wanted, _form(path).split("/")) for path in files}
        best = [path for path, count in shared.items() if count == max(shared.values())]
        if len(best) > 1 and name in best:
            best = [name]
        if len(best) > 1:
            return f"{len(files)} files have this name: {best[0]}, {best[1]}{', ...' if len(best) > 2 else ''}"
        if not best:
            return ""
        matched = EXACT if best[0] == name else shared[best[0]]
        return FoundImage(_join(place, best[0]), folder, best[0], matched)

    def _files(self, place: str, folder: Folder) -> dict[str, list[str]]:
        """Return the files below a place by their base name."""
        if place not in self._listed:
            by_name: dict[str, list[str]] = {}
            for file in list_files(folder).files if folder.is_folder() else ():
                by_name.setdefault(posixpath.basename(_form(file.path)), []).append(file.path)
            self._listed[place] = by_name
        return self._listed[place]


def _plain(name: str) -> str:
    """Return a name as a path with slashes."""
    slashed = name.replace("\\", "/")
    return slashed if "://" in slashed else posixpath.normpath(slashed)


def _form(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _shared(one: list[str], other: list[str]) -> int:
    """Return how many of the last components two paths share."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


def _cut(uri: str) -> tuple[str, str]:
    """Return a path or URI, and the query of a URI with its question mark."""
    if "://" not in uri:
        return Folder.at(uri).path, ""
    head, mark, query = uri.partition("?")
    return head.rstrip("/"), mark + query


def _parent(uri: str) -> str | None:
    head, query = _cut(uri)
    above = head.rpartition("/")[0]
    return f"{above}{query}" if above and not above.endswith("/") else None


def _join(uri: str, path: str) -> str:
    """Return the path or URI of a file below another one."""
    head, query = _cut(uri)
    return f"{head}/{path}{query}"
