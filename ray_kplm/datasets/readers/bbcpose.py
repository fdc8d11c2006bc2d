"""BBCPose: frames of sign language videos with seven joints (Charles et al. 2013).

The authors' layout (the code's README quotes bbcpose.mat's fields; loaders of the set show the folders):

    1/1.jpg, 1/2.jpg ... 20/...               one folder for each video, its frames by number
    bbcpose_extbbcpose_code_1.0/bbcpose.mat   struct array `bbcpose`, one element for each video: videoName, source,
                                              type (train | val | test), train_frames, train_joints (2, 7, N),
                                              test_frames, test_joints

Videos 1 to 20 are BBCPose (source "buehler11"), the further ones Extended BBC Pose, which is not read. MATLAB counts pixels
from 1, so 1 is subtracted from every coordinate.

Split (thesis 2.7: "10 for training, 5 for validation and 5 for testing", "1 of every 10 frames", "the standard test set (1000
images)"): every 10th frame of train_frames of the training videos; all test_frames, annotated by hand, of the test videos.
Box: the bounding box of the joints, as the authors give none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Sample, bounding_box
from ray_kplm.datasets.readers.layout import Distribution, Layout, interlandmark_distance
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

BBCPOSE = Distribution(
    "BBC Pose",
    "https://www.robots.ox.ac.uk/~vgg/data/pose/",
    "research only; the BBC owns the pictures, password on request",
)
LANDMARKS = ("head", "right_wrist", "left_wrist", "right_elbow", "left_elbow", "right_shoulder", "left_shoulder")
VIDEOS = 20
STEP = 10
"""Every STEP-th training frame is used."""


def list_bbcpose(source: Folder, options: IngestOptions) -> Listing:
    """List BBC Pose."""
    layout = Layout(source, BBCPOSE, options)
    file = layout.locate("bbcpose_extbbcpose_code_1.0/bbcpose.mat", "code/bbcpose.mat", "bbcpose.mat")
    videos = layout.mat(file).get("bbcpose")
    if videos is None or not {"type", "train_frames", "train_joints"} <= set(videos.dtype.names or ()):
        raise DataError(f"{source}/{file} has no struct array bbcpose with types, frames and joints; download it again")
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    wanted = {"train": (TRAIN, "train", STEP), "test": (TEST, "test", 1)}
    for number, video in enumerate(videos.ravel()[:VIDEOS], start=1):
        kind = "".join(map(str, np.ravel(video["type"])))
        if kind not in wanted:
            continue
        layout.files(layout.locate(str(number)))
        split, annotated, step = wanted[kind]
        try:
            frames = np.asarray(video[f"{annotated}_frames"]).ravel().astype(np.int64)
            joints = np.asarray(video[f"{annotated}_joints"], np.float64)
        except (ValueError, TypeError) as error:
            layout.reject(str(number), f"bad annotation: {annotated}_frames or {annotated}_joints: {error}")
            continue
        splits[split] += _samples(layout, number, frames, joints, step)
    return layout.listing(splits, LANDMARKS, interlandmark_distance(LANDMARKS, "left_shoulder", "right_shoulder"))


def _samples(layout: Layout, video: int, frames: Any, joints: Any, step: int) -> Iterator[Sample]:
    """Yield every `step`-th of the annotated frames of a video, with joints (2, 7, frames)."""
    if joints.shape != (2, len(LANDMARKS), len(frames)):
        layout.reject(f"{video}", f"bad annotation: joints {joints.shape} for {len(frames)} frames")
        return
    for index in range(0, len(frames), step):
        path = f"{video}/{int(frames[index])}.jpg"
        xy = joints[:, :, index].T.astype(np.float64) - 1
        try:
            annotation = {"landmarks": xy, "group": str(video)}
            yield Sample(path, path, bounding_box(xy), annotation=annotation, frame=(str(video), int(frames[index])))
        except DataError as error:
            layout.reject(path, str(error))
