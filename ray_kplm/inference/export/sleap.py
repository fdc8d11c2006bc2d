"""Predicted landmarks as SLEAP's predictions, by sleap-io."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ray_kplm.inference.export.predictions import Object, Picture, Predictions
from ray_kplm.inference.export.written_files import local_file
from ray_kplm.methods.visibility import ABSENT, FOUND
from ray_kplm.storage import Folder

FILE = "landmarks.slp"


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `landmarks.slp`: a predicted instance for each object. All of it is in memory.

    Pictures of one size are the frames of one video, as SLEAP has it, named by their paths below the source folder. Points
    are source pixels with pixel centres at integers, which is SLEAP's frame. Inferred landmarks are points that are not
    visible, absent ones are NaN. Scores of points are probabilities of being found, or else confidences.
    """
    sleap_io: Any = importlib.import_module("sleap_io")

    skeleton = _skeleton(found)
    groups: dict[tuple[str | None, int, int], list[Picture]] = {}
    for picture in found.pictures():
        size = (picture.width, picture.height)
        groups.setdefault((picture.sequence, *size), []).append(picture)
    frames = []
    for (sequence, width, height), pictures in groups.items():
        video = _video([picture.file for picture in pictures] if sequence is None else sequence, width, height)
        for number, picture in enumerate(pictures):
            instances = [_instance(one, skeleton) for one in picture.objects]
            index = number if picture.frame is None else picture.frame
            frames.append(sleap_io.LabeledFrame(video=video, frame_idx=index, instances=instances))
    labels = sleap_io.Labels(frames, provenance=_provenance(found))
    with local_file(target, FILE) as path:
        sleap_io.save_slp(labels, str(path), embed=False, verbose=False)
    return []


def _video(files: list[str] | str, width: int, height: int) -> Any:
    """Return a video, or a sequence of images as one, whose files are not opened."""
    sleap_io: Any = importlib.import_module("sleap_io")

    facts: dict[str, Any] = {"type": "MediaVideo", "filename": files, "grayscale": False}
    if isinstance(files, list):
        sides = {"shape": (len(files), height, width, 3), "height_": height, "width_": width, "channels_": 3}
        facts |= {"type": "ImageVideo", "filename": files[0], "filenames": files, **sides}
    return sleap_io.Video(filename=files, backend_metadata=facts, open_backend=False)


def _skeleton(found: Predictions) -> Any:
    sleap_io: Any = importlib.import_module("sleap_io")

    layout, names = found.layout, found.layout.names
    return sleap_io.Skeleton(
        nodes=list(names),
        edges=[(names[a], names[b]) for a, b in layout.skeleton],
        symmetries=[(names[a], names[b]) for a, b in layout.symmetries],
        name=layout.category,
    )


def _instance(one: Object, skeleton: Any) -> Any:
    sleap_io: Any = importlib.import_module("sleap_io")

    xy = np.where((one.flags > ABSENT)[:, None], one.xy, np.nan)
    instance = sleap_io.PredictedInstance.from_numpy(xy, skeleton, point_scores=one.likelihood, score=one.score)
    instance.points["visible"] = one.flags == FOUND
    return instance


def _provenance(found: Predictions) -> dict[str, Any]:
    return {"software": f"ray_kplm {found.version}", "detector": found.detector, "date": found.date}
