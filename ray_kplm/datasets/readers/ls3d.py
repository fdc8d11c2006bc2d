"""LS3D as in the thesis: 300W-LP for training, LS3D-W balanced for testing; 68 points (Zhu et al. 2016; Bulat 2017).

Two downloads below one source, as the README of the released code (UnsupervisedLandmarks) has them:

    300W_LP/AFW/AFW_134212_1_0.jpg                       and HELEN, IBUG, LFPW
    300W_LP/AFW/AFW_134212_1_0.mat                       Pose_Para: pitch, yaw, roll in radians, translation, scale
    300W_LP/landmarks/AFW/AFW_134212_1_0_pts.mat         pts_3d: 68 x 2, the projections of 3D points; and pts_2d
    LS3D-W-balanced-20-03-2017/new_dataset/1.jpg, 1.t7   a Torch7 tensor 68 x 2

`300wlp` reads only the first and draws its test split; the views rendered from one photograph stay in one split.

Split (thesis 2.7): all of 300W-LP, all 7,200 images of LS3D-W balanced. The *_Flip folders hold mirror images of the others
and are left out, as training mirrors images itself. Landmarks are the iBUG points 0..67 in their 3D version ("annotated with 3D
points"). Box: the bounding box of the landmarks, whose sqrt(w * h) is the normaliser of the thesis and of the released
evaluation. The crop is around the box with a third of its height added on top, as in the released
`getbox_fromlandmarks_ls3d_eval`.

Attribute `yaw`, degrees: of 300W-LP from Pose_Para. LS3D-W balanced has no angles. The number of a
file gives its range: 1, 4, .. are 0-30, 2, 5, .. are 30-60, 3, 6, .. are 60-90 degrees (the loader of
github.com/hzh8311/pyhowfar); `yaw` is the middle of the range, 15, 45 or 75.
"""

from __future__ import annotations

import math
import posixpath
from typing import Any

from ray_kplm.datasets.dataset import IngestOptions, Listing, split_of
from ray_kplm.datasets.ingest_source import Sample, bounding_box
from ray_kplm.datasets.readers.layout import BOX_SIZE, Distribution, Layout, parse_mat, parse_points
from ray_kplm.datasets.readers.torch7 import read_tensor
from ray_kplm.datasets.source_files import read_file
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

LP = Distribution("300W-LP", "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm", "research only")
BALANCED = Distribution("LS3D-W balanced", "https://www.adrianbulat.com/face-alignment", "non-commercial research only")
LS3D = Distribution("LS3D", f"{LP.url} and {BALANCED.url}", BALANCED.terms)

SETS = ("AFW", "HELEN", "IBUG", "LFPW")
LANDMARKS = tuple(str(index) for index in range(68))
SWAP_PAIRS = [
    *([i, 16 - i] for i in range(8)),  # jaw
    *([i, 43 - i] for i in range(17, 22)),  # brows
    [31, 35],
    [32, 34],  # nostrils
    *([i, 81 - i] for i in range(36, 40)),  # eyes
    [40, 47],
    [41, 46],
    [48, 54],
    [49, 53],
    [50, 52],
    [55, 59],
    [56, 58],  # outer lips
    [60, 64],
    [61, 63],
    [65, 67],  # inner lips
]
"""Pairs of iBUG points, from 0, as in the released `shuffleLR` of Bulat & Tzimiropoulos 2017."""

_BALANCED_FOLDER = "new_dataset"
_FOREHEAD = 1 / 3  # added on top of the box, share of its height


def list_ls3d(source: Folder, options: IngestOptions) -> Listing:
    """List 300W-LP for training and LS3D-W balanced for testing."""
    layout = Layout(source, LS3D, options)
    train = _list_lp(layout)
    places = [f"{folder}{_BALANCED_FOLDER}" for folder in ("LS3D-W-balanced-20-03-2017/", "LS3D-balanced/", "")]
    folder = layout.locate(*places, origin=BALANCED)
    pictures = layout.files(folder, (".jpg", ".png"))
    layout.files(folder, (".t7",))
    test = [Sample(path, path) for path in pictures]
    splits = {TRAIN: train, TEST: test}
    return layout.listing(splits, LANDMARKS, BOX_SIZE, swap_pairs=SWAP_PAIRS, read_annotation=read_annotation)


def list_300wlp(source: Folder, options: IngestOptions) -> Listing:
    """List 300W-LP, split by photograph."""
    layout = Layout(source, LP, options)
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    for sample in _list_lp(layout):
        splits[split_of(_photograph(sample.path), options)].append(sample)
    return layout.listing(splits, LANDMARKS, BOX_SIZE, swap_pairs=SWAP_PAIRS, read_annotation=read_annotation)


def _list_lp(layout: Layout) -> list[Sample]:
    """Return the images of 300W-LP, without their annotation."""
    inside = f"{SETS[0]}/"
    within = layout.locate(f"300W_LP/{inside}", inside, f"300W-LP/300W_LP/{inside}", origin=LP).removesuffix(inside)
    layout.locate(f"{within}landmarks", origin=LP)
    paths = [path for name in SETS if layout.source.exists(within + name) for path in layout.files(within + name)]
    layout.files(f"{within}landmarks", (".mat",))
    return [Sample(path, path) for path in paths]


def _photograph(path: str) -> str:
    """Return the photograph of a rendered view; its views differ in the last number of their names."""
    return path.rpartition("_")[0]


def read_annotation(source: Folder, sample: Sample) -> Sample:
    """Add the annotation from the files of a picture."""
    folder, name = posixpath.split(posixpath.splitext(sample.path)[0])
    balanced = posixpath.basename(folder) == _BALANCED_FOLDER
    annotation = _balanced(source, folder, name) if balanced else _rendered(source, folder, name)
    box = bounding_box(annotation["landmarks"])
    x0, y0, x1, y1 = box
    return sample._replace(box=box, window=(x0, y0 - _FOREHEAD * (y1 - y0), x1, y1), annotation=annotation)


def _balanced(source: Folder, folder: str, name: str) -> dict[str, Any]:
    """Return the annotation of an image of LS3D-W balanced."""
    file = f"{folder}/{name}.t7"
    xy = parse_points(read_tensor(_read(source, file), file), len(LANDMARKS), file)
    annotation: dict[str, Any] = {"landmarks": xy}
    if name.isdigit():
        annotation["yaw"] = {1: 15.0, 2: 45.0, 0: 75.0}[int(name) % 3]
    return annotation


def _rendered(source: Folder, folder: str, name: str) -> dict[str, Any]:
    """Return the annotation of an image of 300W-LP."""
    root, _, subset = folder.rpartition("/")
    file = posixpath.join(root, "landmarks", subset, f"{name}_pts.mat")
    variables = parse_mat(_read(source, file), file)
    pose_file = f"{folder}/{name}.mat"
    pose = parse_mat(_read(source, pose_file), pose_file).get("Pose_Para")
    if "pts_3d" not in variables or pose is None or pose.size < 3:
        raise DataError(f"bad annotation: {file} must hold pts_3d, and {pose_file} Pose_Para")
    try:
        pitch, yaw, roll = (math.degrees(float(angle)) for angle in pose.ravel()[:3])
    except (TypeError, ValueError):
        raise DataError(f"bad annotation: {pose_file} has angles in Pose_Para that are no numbers") from None
    xy = parse_points(variables["pts_3d"], len(LANDMARKS), file)
    return {"landmarks": xy, "group": _photograph(name), "pitch": pitch, "yaw": yaw, "roll": roll}


def _read(source: Folder, path: str) -> bytes:
    """Return the content of an annotation file, or raise DataError if it is missing."""
    return read_file(source, path, missing=f"no landmarks: {path} is missing")
