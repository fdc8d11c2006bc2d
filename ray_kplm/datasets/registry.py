"""The data sets that ingest knows by name: `kplm ingest SOURCE DATASET --format celeba`.

Light to import: the command line lists them. A reader's module has the layout, the split rules and their sources.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from ray_kplm.errors import ConfigError

AUTO = "auto"
"""By what the source is: Parquet files, or a folder of images."""


class Format(NamedTuple):
    reader: str  # module of ray_kplm.datasets.readers, and its function
    text: str  # what SOURCE holds


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


def reader_of(name: str) -> Callable:
    """The function (source folder, options) -> `dataset.Listing` of a format."""
    if name not in FORMATS:
        raise ConfigError(f"ingest: format {name!r} must be one of {', '.join([AUTO, *FORMATS])}")
    module, _, function = FORMATS[name].reader.partition(".")
    return getattr(importlib.import_module(f"ray_kplm.datasets.readers.{module}"), function)
