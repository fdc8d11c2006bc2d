"""Where the pictures of a COCO file are: its file names are plain, begin with folders, or are paths on another machine."""

from __future__ import annotations

import posixpath
import re

from ray_kplm.datasets.readers.layout import Layout
from ray_kplm.datasets.split_names import words_of

_ABSOLUTE = re.compile(r"/|\w+:/")  # also a drive or an address


class CocoPictures:
    """The pictures that one annotation file names."""

    def __init__(self, layout: Layout, file: str) -> None:
        """List the folder of the pictures of the file `file` below the source."""
        self._layout = layout
        self._folders = [folder for folder in _folders(file) if not folder or layout.has_folder(folder)]
        self._home = posixpath.dirname(file)
        self._everywhere = False
        self._guessed: dict[str, str] = {}
        layout.files(self._folders[0])

    def path(self, file_name: str) -> str:
        """Return the path of the picture that a row names, below the source; where it should be, if it does not exist."""
        name = posixpath.normpath(file_name.replace("\\", "/"))
        if (found := self._find(name)) is None and not self._everywhere:
            self._layout.files("")
            self._everywhere = True
            found = self._find(name)
        expected = name if _ABSOLUTE.match(name) or self._folders[0] == self._home else f"{self._folders[0]}/{name}"
        return found or expected

    def _find(self, name: str) -> str | None:
        root = f"{self._layout.source.path}/"
        if name.startswith(root):
            return self._layout.find(name[len(root) :])
        if _ABSOLUTE.match(name):
            return self._find_by_end(name)
        # Its folders may begin above the source, as in `mice/images/1.jpg` for a source `mice`.
        parts = name.split("/")
        above = [n for n in range(1, len(parts)) if root.endswith(f"/{'/'.join(parts[:n])}/")]
        places = [posixpath.join(folder, name) for folder in self._folders]
        places += ["/".join(parts[n:]) for n in above]
        return next((found for place in places if (found := self._layout.find(place))), None)

    def _find_by_end(self, name: str) -> str | None:
        """Return the picture whose path is the longest end of a path of another machine.

        The bare name is such an end too, but not for two different paths.
        """
        parts = [part for part in name.split("/") if part]
        for n in range(1, len(parts)):
            end = "/".join(parts[n:])
            for folder in self._folders if n == len(parts) - 1 else ["", *self._folders]:
                found = self._layout.find(posixpath.join(folder, end))
                if found and self._guessed.setdefault(found, name) == name:
                    return found
        return None


def _folders(file: str) -> list[str]:
    """Return the folders in which the pictures of a file may be, by its name and place, the likeliest first."""
    home, base = posixpath.split(file)
    stem = posixpath.splitext(base)[0]
    names = [stem.rpartition("_")[2], re.split("[_-]", stem)[-1], *reversed(words_of(stem))]
    likely = dict.fromkeys(names)
    split, first = list(likely), names[0]
    return list(
        dict.fromkeys([first, f"images/{first}", "images", *split, *(f"images/{name}" for name in split), home, ""])
    )
