"""Predicted landmarks as SLEAP's predictions (.slp) and as NWB with ndx-pose, both by sleap-io."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_kplm.inference.export.predictions import Object, Picture, Predictions
from ray_kplm.inference.export.written_files import local_file
from ray_kplm.methods.visibility import ABSENT, FOUND
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    import sleap_io

SLP_FILE, NWB_FILE = "landmarks.slp", "landmarks.nwb"


def write_slp(found: Predictions, target: Folder) -> list[str]:
    """Write `landmarks.slp`: a predicted instance for each object. All of it is in memory.

    Pictures of one size are the frames of one video, as SLEAP has it, named by their paths below the source folder. Points
    are source pixels with pixel centres at integers, which is SLEAP's frame. Inferred landmarks are points that are not
    visible, absent ones are NaN. Scores of points are probabilities of being found, or else confidences.
    """
    import sleap_io

    skeleton = _skeleton(found)
    groups: dict[tuple[str | None, int, int], list[Picture]] = {}
    for picture in found.pictures():
        size = (picture.width, picture.height)
        groups.setdefault((picture.sequence, *size), []).append(picture)
    frames = []
    for (sequence, width, height), pictures in groups.items():
        shape = (len(pictures), height, width, 3)
        names: Any = [picture.file for picture in pictures] if sequence is None else sequence
        video = sleap_io.Video(filename=names, backend_metadata={"shape": shape}, open_backend=False)
        for number, picture in enumerate(pictures):
            instances = [_instance(one, skeleton) for one in picture.objects]
            index = number if picture.frame is None else picture.frame
            frames.append(sleap_io.LabeledFrame(video=video, frame_idx=index, instances=instances))
    labels = sleap_io.Labels(frames, provenance=_provenance(found))
    with local_file(target, SLP_FILE) as path:
        sleap_io.save_slp(labels, str(path), embed=False, verbose=False)
    return []


def write_nwb(found: Predictions, target: Folder) -> list[str]:
    """Write `landmarks.nwb`: ndx-pose's estimates, a container for each video and object. All of it is in memory.

    Pictures that are no frames of videos are the frames of one "video" with the category's name, a second each, and `notes`
    has their names in this order. The frames of a video are a second each, too. Points are source pixels with pixel centres
    at integers, as `reference_frame` says. Absent landmarks are left out. `confidence` is the probability of being found, or
    else the height of the peak.
    """
    import sleap_io
    from sleap_io.io.nwb_predictions import write_nwb as write_predictions

    skeleton, tracks, names = _skeleton(found), list[Any](), list[str]()
    videos: dict[str, Any] = {}
    frames, last = [], 0
    for picture in found.pictures():
        index = len(names) if picture.frame is None else picture.frame
        if picture.frame is None:
            names.append(picture.file)
        if not any((one.flags > ABSENT).any() for one in picture.objects):
            continue
        name = _nwb_name(picture.sequence or found.layout.category)
        video = videos.setdefault(name, sleap_io.Video(filename=name, open_backend=False))
        while len(tracks) < len(picture.objects):
            tracks.append(sleap_io.Track(f"object{len(tracks)}"))
        instances = [_instance(one, skeleton, track) for one, track in zip(picture.objects, tracks, strict=False)]
        frames.append(sleap_io.LabeledFrame(video=video, frame_idx=index, instances=instances))
        last = max(last, index)
    if not frames:
        return [f"{NWB_FILE}: not written, as no landmark is found in any picture"]
    labels = sleap_io.Labels(frames)
    date = (
        datetime.datetime.fromisoformat(found.date) if found.date else datetime.datetime.fromtimestamp(0, datetime.UTC)
    )
    session = {
        "session_description": f"Landmarks of {found.layout.category}, predicted by ray_kplm",
        "session_start_time": date,
        "identifier": f"ray_kplm {found.detector}",
        "notes": "\n".join(names) or None,
    }
    metadata = {
        "video_timestamps": np.arange(last + 1, dtype=np.float64),
        "source_software": "ray_kplm",
        "source_software_version": found.version or None,
        "scorer": found.detector or None,
    }
    with local_file(target, NWB_FILE) as path:
        write_predictions(labels, str(path), session, metadata)
    return []


def _skeleton(found: Predictions) -> sleap_io.Skeleton:
    import sleap_io

    layout, names = found.layout, found.layout.names
    return sleap_io.Skeleton(
        nodes=list(names),
        edges=[(names[a], names[b]) for a, b in layout.skeleton],
        symmetries=[(names[a], names[b]) for a, b in layout.symmetries],
        name=_nwb_name(layout.category),
    )


def _instance(one: Object, skeleton: sleap_io.Skeleton, track: Any = None) -> sleap_io.PredictedInstance:
    import sleap_io

    xy = np.where((one.flags > ABSENT)[:, None], one.xy, np.nan)
    instance = sleap_io.PredictedInstance.from_numpy(
        xy, skeleton, point_scores=one.likelihood, score=one.score, track=track
    )
    instance.points["visible"] = one.flags == FOUND
    return instance


def _provenance(found: Predictions) -> dict[str, Any]:
    return {"software": f"ray_kplm {found.version}", "detector": found.detector, "date": found.date}


def _nwb_name(name: str) -> str:
    """Return a name without the characters that names in NWB must not have."""
    return os.path.normpath(name).replace(":", "_")
