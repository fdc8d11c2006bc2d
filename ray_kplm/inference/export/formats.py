"""The formats that landmarks are exported to: `kplm predict --to`. Nothing heavy is imported before a format is written."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray_kplm.errors import ConfigError
from ray_kplm.extras import check_installed

if TYPE_CHECKING:
    from ray_kplm.inference.export.predictions import Predictions
    from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        files: What is written below OUT.
        text: What it is, in one line.
        writer: Module of this room and name of its function `(found: Predictions, target: Folder) -> notes`, one a line.
        needs: Modules that an extra brings, `ray_kplm.extras.EXTRAS`.
    """

    files: str
    text: str
    writer: tuple[str, str] | None
    needs: tuple[str, ...] = ()


PARQUET = "parquet"
FORMATS = {
    PARQUET: Format("part-*.parquet", "the tables themselves, which are always written", None),
    "csv": Format("landmarks.csv", "a line for each landmark", ("landmarks_csv", "write")),
    "coco": Format("coco.json", "COCO keypoints", ("coco", "write")),
    "dlc": Format("dlc/*.csv, *.h5", "DeepLabCut's tables", ("deeplabcut", "write"), ("pandas", "tables")),
    "slp": Format("landmarks.slp", "SLEAP's predictions", ("sleap", "write"), ("sleap_io",)),
    "nwb": Format("landmarks.nwb", "NWB with ndx-pose", ("nwb", "write"), ("ndx_pose",)),
    "yolo": Format("yolo/", "a YOLO pose data set: data.yaml and labels", ("yolo", "write")),
    "labelstudio": Format("label_studio/", "Label Studio's tasks with predictions", ("label_studio", "write")),
}
"""Name in `--to` -> the format."""


def check_formats(names: Iterable[str]) -> None:
    """Raise ConfigError for a name that is no format, or for one whose packages are not installed."""
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"--to {name}: no such format; choose from {', '.join(FORMATS)}")
        check_installed(*FORMATS[name].needs)


def export(found: Predictions, target: Folder, names: Iterable[str]) -> list[str]:
    """Write predictions in formats; return notes for the user, a line each."""
    notes: list[str] = []
    for name in names:
        if (writer := FORMATS[name].writer) is not None:
            module = importlib.import_module(f"{__package__}.{writer[0]}")
            notes += getattr(module, writer[1])(found, target)
    return notes
