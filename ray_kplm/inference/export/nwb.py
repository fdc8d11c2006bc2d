"""Predicted landmarks as Neurodata Without Borders with ndx-pose.

By ndx-pose itself, not by sleap-io: that writes the rate of frames in whole Hz (0.9.5), so the times of 30 frames a second are
wrong, and takes one path for a video and none for a list of pictures.
"""

from __future__ import annotations

import datetime
import importlib
import itertools
import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.inference.export.predictions import Picture, Predictions
from ray_kplm.inference.export.written_files import local_file
from ray_kplm.methods.visibility import ABSENT
from ray_kplm.storage import Folder

FILE = "landmarks.nwb"
PICTURES = "pictures"
"""Name of the estimates of pictures that are no frames of videos."""
REFERENCE_FRAME = "(0, 0) is the centre of the top left pixel of the upright picture; x to the right, y down."


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `landmarks.nwb`: in the module `behavior` a `PoseEstimation` for each video, and for each object of a picture.

    Pictures that are no frames of videos are the estimates `pictures`, a second each, and `pictures_table` has their
    names and sizes. Frames of a video have their times in it, or their numbers where it has no times. Absent landmarks are NaN.
    `confidence` is the probability of being found, or else the height of the peak. All of it is in memory.
    """
    ndx_pose, pynwb = _packages()
    groups: dict[str | None, list[Picture]] = {}
    for picture in found.pictures():
        groups.setdefault(picture.sequence, []).append(picture)
    start = (
        datetime.datetime.fromisoformat(found.date) if found.date else datetime.datetime.fromtimestamp(0, datetime.UTC)
    )
    about = f"Landmarks of {found.layout.category}, predicted by ray_kplm"
    file = pynwb.NWBFile(about, f"ray_kplm {found.detector}", start)
    module = file.create_processing_module("behavior", "processed behavioral data")
    edges = np.array(found.layout.skeleton, np.uint32).reshape(-1, 2)
    skeleton = ndx_pose.Skeleton(name=_name(found.layout.category), nodes=list(found.layout.names), edges=edges)
    module.add(ndx_pose.Skeletons(skeletons=[skeleton]))
    for sequence, pictures in groups.items():
        for number in range(max(len(picture.objects) for picture in pictures)):
            module.add(_estimates(sequence, pictures, number, found, skeleton))
    if None in groups:
        module.add(_table(groups[None]))
    with local_file(target, FILE) as path, pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return []


def _estimates(sequence: str | None, pictures: list[Picture], number: int, found: Predictions, skeleton: Any) -> Any:
    """Return the estimates of the object of this number in each picture; NaN where a picture has fewer."""
    ndx_pose, _ = _packages()
    xy = np.full((len(pictures), len(found.layout), 2), np.nan)
    likelihood = np.zeros(xy.shape[:2])
    for row, picture in enumerate(pictures):
        if number < len(picture.objects):
            one = picture.objects[number]
            xy[row], likelihood[row] = np.where((one.flags > ABSENT)[:, None], one.xy, np.nan), one.likelihood
    times = _times(pictures)
    series = [
        ndx_pose.PoseEstimationSeries(
            name=unique, description=f"Landmark {name}.", data=xy[:, k], unit="pixels", timestamps=times,
            reference_frame=REFERENCE_FRAME, confidence=likelihood[:, k],
            confidence_definition="Probability of being found, or else the height of the heatmap's peak.",
        )
        for k, (name, unique) in enumerate(zip(found.layout.names, _names(found.layout.names), strict=True))
    ]  # fmt: skip
    name = PICTURES if sequence is None else posixpath.splitext(sequence)[0]
    return ndx_pose.PoseEstimation(
        name=_name(name if number == 0 else f"{name}_object{number}"), pose_estimation_series=series,
        description=f"Landmarks of object {number} in {sequence or 'the pictures of the table'}.", skeleton=skeleton,
        original_videos=None if sequence is None else [sequence], scorer=found.detector or None,
        source_software="ray_kplm", source_software_version=found.version or None,
    )  # fmt: skip


def _times(pictures: list[Picture]) -> NDArray[np.float64]:
    if all(picture.time is not None for picture in pictures):
        return np.array([picture.time for picture in pictures], np.float64)
    return np.array([row if p.frame is None else p.frame for row, p in enumerate(pictures)], np.float64)


def _table(pictures: list[Picture]) -> Any:
    """Return the names and sizes of pictures, in the order of their times."""
    core = _packages()[1].core
    columns: dict[str, tuple[str, list[Any]]] = {
        "path": ("Path below the folder of the pictures.", [picture.file for picture in pictures]),
        "width": ("Pixels.", [picture.width for picture in pictures]),
        "height": ("Pixels.", [picture.height for picture in pictures]),
    }
    vectors = [core.VectorData(name=name, description=text, data=data) for name, (text, data) in columns.items()]
    return core.DynamicTable(name=f"{PICTURES}_table", description="The pictures, a second each.", columns=vectors)


def _names(names: Sequence[str]) -> list[str]:
    """Return different names in NWB for different names: `a_b` and `a_b_2` for a/b and a:b."""
    chosen: list[str] = []
    for name in map(_name, names):
        others = (f"{name}_{number}" for number in itertools.count(2))
        chosen.append(next(one for one in itertools.chain([name], others) if one not in chosen))
    return chosen


def _name(name: str) -> str:
    """Return a name without the characters that names in NWB must not have."""
    return name.replace("/", "_").replace(":", "_")


def _packages() -> tuple[Any, Any]:
    """Return the modules ndx_pose and pynwb, which have no types."""
    return importlib.import_module("ndx_pose"), importlib.import_module("pynwb")
