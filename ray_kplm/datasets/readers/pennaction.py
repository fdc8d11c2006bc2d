"""PennAction: frames of sports videos with thirteen joints (Zhang et al. 2013).

The authors' layout (README of Penn_Action.tar.gz):

    frames/0001/000001.jpg ...                one folder for each video
    labels/0001.mat                           action, x and y (frames, 13), visibility (frames, 13),
                                              bbox (frames, 4): x0 y0 x1 y1, nframes, dimensions, train

Coordinates are MATLAB's, from 1; unknown joints are at (1, 1). Some videos have one box less than frames: the last box is then
used twice.

Split (thesis 2.7): six categories; "the 5 first videos for each category" are the test set and the others the training set;
the authors' own split in halves is not used. All frames are used.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Sample
from ray_kplm.datasets.readers.layout import BOX_SIZE, Distribution, Layout
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

PENN = Distribution("Penn Action", "http://dreamdragon.github.io/PennAction/", "research only")
ACTIONS = ("baseball_pitch", "baseball_swing", "golf_swing", "jumping_jacks", "tennis_forehand", "tennis_serve")
LANDMARKS = (
    "head",
    *(
        f"{side}_{joint}"
        for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)
TEST_VIDEOS = 5
"""Number of test videos, the first ones of each category."""


def list_pennaction(source: Folder, options: IngestOptions) -> Listing:
    """List Penn Action."""
    layout = Layout(source, PENN, options)
    root = "" if source.exists("labels") else "Penn_Action/"
    labels, frames = layout.locate(f"{root}labels", "labels"), layout.locate(f"{root}frames", "frames")
    layout.files(frames)
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    seen: Counter[str] = Counter()
    for file in layout.files(labels, (".mat",)):
        video = posixpath.splitext(posixpath.basename(file))[0]
        try:
            label = layout.mat(file)
            action = str(np.ravel(label["action"])[0])
            if action not in ACTIONS:
                continue
            samples = list(_samples(f"{frames}/{video}", video, label))
        except (DataError, KeyError, IndexError, ValueError, TypeError) as error:
            layout.reject(file, str(error) if isinstance(error, DataError) else f"bad annotation: {file}: {error}")
            continue
        seen[action] += 1
        splits[TEST if seen[action] <= TEST_VIDEOS else TRAIN] += samples
    return layout.listing(splits, LANDMARKS, BOX_SIZE)


def _samples(folder: str, video: str, label: dict[str, Any]) -> Iterator[Sample]:
    """Yield the frames of a video. Raises ValueError if the shapes of its annotation do not match."""
    xy = np.stack([label["x"], label["y"]], axis=2).astype(np.float64) - 1
    visible, boxes = np.asarray(label["visibility"]) > 0, np.asarray(label["bbox"], np.float64) - 1
    if (
        xy.shape[1:] != (len(LANDMARKS), 2)
        or visible.shape != xy.shape[:2]
        or boxes.shape[1:] != (4,)
        or not len(boxes)
    ):
        raise ValueError(f"x {xy.shape[:2]}, visibility {visible.shape}, bbox {boxes.shape}")
    xy[(xy == 0).all(axis=2) & ~visible] = np.nan
    for index in range(len(xy)):
        path = f"{folder}/{index + 1:06d}.jpg"
        x0, y0, x1, y1 = map(float, boxes[min(index, len(boxes) - 1)])
        annotation = {"landmarks": xy[index], "visible": visible[index].tolist(), "group": video}
        yield Sample(path, path, (x0, y0, x1, y1), annotation=annotation, frame=(video, index + 1))
