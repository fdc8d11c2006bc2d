"""Files of an export: texts in pieces, and files that a library writes to a path of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_kplm.storage import Folder


def write_text(target: Folder, name: str, pieces: Iterable[str]) -> None:
    """Write a text file of a folder, in UTF-8, from its pieces."""
    with target.writing(name) as stream:
        for piece in pieces:
            stream.write(piece.encode())


@contextmanager
def local_file(target: Folder, name: str) -> Iterator[Path]:
    """Give a path to write a file to, and copy it to the folder at the end of the block: for libraries that take only paths.

    The temporary folder of the machine must have room for the file.
    """
    with tempfile.TemporaryDirectory(prefix="ray_kplm-") as folder:
        path = Path(folder) / os.path.basename(name)
        yield path
        with path.open("rb") as content, target.writing(name) as stream:
            shutil.copyfileobj(content, stream, 2**20)
