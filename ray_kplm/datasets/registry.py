"""The published data sets that ingest reads by name: `kplm ingest SOURCE DATASET --format celeba`.

The command line imports this module, so it imports no reader. A reader's module documents the layout, the split and their
sources.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ray_kplm.errors import ConfigError

if TYPE_CHECKING:
    from ray_kplm.datasets.dataset import IngestOptions, Listing
    from ray_kplm.storage import Folder

AUTO = "auto"
"""The format is determined by the source: Parquet files or a folder of images."""


class Format(NamedTuple):
    """A published data set.

    Attributes:
        reader: `module.function`, below ray_kplm.datasets.readers.
        text: Content of the source folder, for the help of the command line.
    """

    reader: str
    text: str


FORMATS = {
    "celeba": Format(
        "celeba.list_celeba", "Img/img_align_celeba, Anno, Eval, and MAFL/training.txt, testing.txt: 5 points"
    ),
    "aflw": Format("aflw.list_aflw", "aflw/data/aflw.sqlite and flickr/, and two lists of faces: 21 points"),
    "ls3d": Format("ls3d.list_ls3d", "300W_LP/ to train on and LS3D-W balanced's new_dataset/ to test on: 68 points"),
    "300wlp": Format("ls3d.list_300wlp", "300W_LP/ alone: 68 points"),
    "bbcpose": Format("bbcpose.list_bbcpose", "folders 1 to 20 of frames, and bbcpose.mat: 7 joints"),
    "human36m": Format("human36m.list_human36m", "S1 ... S11 with Videos/ and MyPoseFeatures/D2_Positions/: 17 joints"),
    "pennaction": Format("pennaction.list_pennaction", "frames/ and labels/, or Penn_Action/ of them: 13 joints"),
    "deepfashion": Format("deepfashion.list_deepfashion", "Img/img and Anno of the In-shop benchmark: 8 points"),
    "catheads": Format("catheads.list_catheads", "CAT_00 ... CAT_06, and two lists of images: 9 points"),
    "cub": Format("cub.list_cub", "CUB_200_2011/: 15 parts of birds"),
    "coco": Format("coco.list_coco", "annotations/*.json in COCO's keypoint format, and the pictures"),
}


def load_reader(name: str) -> Callable[[Folder, IngestOptions], Listing]:
    """Return the function of a format that lists a source folder.

    Raises:
        ConfigError: There is no such format.
    """
    if name not in FORMATS:
        raise ConfigError(f"ingest: format {name!r} must be one of {', '.join([AUTO, *FORMATS])}")
    module, _, function = FORMATS[name].reader.partition(".")
    reader: Callable[[Folder, IngestOptions], Listing] = getattr(
        importlib.import_module(f"ray_kplm.datasets.readers.{module}"), function
    )
    return reader
