"""The formats of annotated points, known by their content."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any

from ray_kplm.datasets.readers.tables import csv_rows
from ray_kplm.errors import DataError
from ray_kplm.labels import coco
from ray_kplm.labels.annotation_file import AnnotationFile


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        text: What it is, in one line.
        reader: Module of this room and name of its function `(content, where) -> AnnotationFile`.
    """

    text: str
    reader: tuple[str, str]


FORMATS = {
    "coco": Format("COCO keypoints (JSON)", ("coco", "read")),
    "labelstudio": Format("Label Studio's export (JSON)", ("label_studio", "read")),
    "dlc": Format("DeepLabCut's labels (CSV)", ("deeplabcut", "read")),
    "dlc_h5": Format("DeepLabCut's labels (HDF5)", ("deeplabcut", "read_h5")),
    "csv": Format("plain CSV", ("csv_table", "read")),
}
"""Name -> the format."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_KNOWN = "COCO keypoints, Label Studio's JSON export, DeepLabCut's CSV or HDF5, and plain CSV"


def read_annotations(content: bytes, where: str) -> AnnotationFile:
    """Return what a file of any of the formats says.

    Args:
        content: Of the file.
        where: The file, for messages.

    Raises:
        DataError: It is of none of the formats, or cannot be read as the one that it is.
        ConfigError: A package that its format needs is not installed.
    """
    name, parsed = recognise(content, where)
    module, function = FORMATS[name].reader
    read = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    file: AnnotationFile = read(parsed, where)
    return file


def recognise(content: bytes, where: str) -> tuple[str, Any]:
    """Return the name of a file's format, and its content as the format's reader takes it; see `read_annotations`."""
    start = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise DataError(f"{where}: is empty; give {_KNOWN}")
    if start.startswith(_HDF5):
        return "dlc_h5", content
    if start[:1] in b"{[":
        return _recognise_json(content, where)
    rows = csv_rows(where, content)
    is_dlc = bool(rows.rows) and rows.rows[0][1][0].lower() == "scorer"
    return ("dlc" if is_dlc else "csv"), rows


def _recognise_json(content: bytes, where: str) -> tuple[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON ({error}); export it again") from None
    if isinstance(value, list):
        return "labelstudio", value
    missing = [field for field in coco.FIELDS if field not in value]
    if missing:
        has = ", ".join(sorted(value))[:100] or "nothing"
        raise DataError(f"{where}: a COCO file has {', '.join(missing)}, too; this one has {has}; known are {_KNOWN}")
    return "coco", value
