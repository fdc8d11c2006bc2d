"""Joins of a user's table with the images of a source, by name: which rows name an image, and what is said about the others.

Two spellings are one name if they are one path, as `./a.jpg` and `a.jpg` are, or a path of Windows with backslashes; so are the
two Unicode forms of one letter. A name that is only similar names nothing: it is reported with what it is similar to.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterable, Sequence

from ray_kplm.errors import DataError

_NEAR = 200_000
"""Names beyond which no similar one is looked for."""


class ImageNames:
    """The names of a source's images."""

    def __init__(self, names: Iterable[str], root: str = "") -> None:
        """Take the names.

        Args:
            names: Paths below the source folder, or other ids.
            root: Path of the source folder; a name may begin with it.
        """
        self._names = dict.fromkeys(names)
        self._root = f"{root.rstrip('/')}/" if root else ""
        self._same: dict[str, str | None] = {}
        for name in self._names:
            form = _form(name)
            self._same[form] = None if form in self._same else name  # None: two images differ by the form only

    def find(self, name: str | None) -> str | None:
        """Return the image that a name names, or None."""
        if not name:
            return None
        if name in self._names:
            return name
        if self._root and name.startswith(self._root):
            name = name[len(self._root) :]
        for form in (_form(name), _form(name.replace("\\", "/"))):
            if found := self._same.get(form):
                return found
        return None

    def near(self, name: str) -> str | None:
        """Return an image whose name differs in its folder, its ending or its letters' case alone, or None."""
        if len(self._names) > _NEAR:
            return None
        wanted = _loose(name)
        return next((known for known in self._names if _loose(known) == wanted), None)

    def first(self) -> str | None:
        """Return the first of the names, as an example."""
        return next(iter(self._names), None)


def spellings(name: str) -> list[str]:
    """Return the ways in which a table may write the name of an image, the name itself first."""
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    plain = [name, *forms]
    return list(dict.fromkeys([*plain, *(f"./{form}" for form in plain), *(form.replace("/", "\\") for form in plain)]))


def join_note(what: str, rows: int, unmatched: Sequence[str], names: ImageNames) -> list[str]:
    """Return what is said of a join: how many rows name an image, and an example of one that names none.

    Args:
        what: The table, for example `--boxes`.
        rows: Number of its rows.
        unmatched: What rows that name no image say.
        names: The images.

    Raises:
        DataError: No row names an image, though there are rows and images.
    """
    example = ""
    if unmatched:
        near = names.near(unmatched[0])
        example = repr(unmatched[0]) + (f" (there is {near!r})" if near is not None else "")
    if rows and len(unmatched) == rows and (first := names.first()) is not None:
        raise DataError(
            f"{what}: none of {rows} rows names an image: the table says {example}, an image is {first!r}; name images by "
            f"their path below the source"
        )
    if not unmatched:
        return [f"{what}: all {rows} rows name an image"]
    return [f"{what}: {rows - len(unmatched)} of {rows} rows name an image, {len(unmatched)} name none, e.g. {example}"]


def _form(name: str) -> str:
    """Return the one spelling of a path."""
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def _loose(name: str) -> str:
    """Return the file name of a path without its ending, in lower case."""
    base = posixpath.basename(_form(name.replace("\\", "/")))
    return posixpath.splitext(base)[0].casefold()
