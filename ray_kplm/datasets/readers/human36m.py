"""Human3.6M: people in a room, four cameras, 17 of the 32 joints (Ionescu et al. 2014).

The authors' layout (their archives Videos, Poses_D2_Positions and Segments_mat_gt_bb of each subject, unpacked):

    S1/Videos/Directions.54138969.mp4
    S1/MyPoseFeatures/D2_Positions/Directions.54138969.cdf      CDF, variable Pose: 1 x frames x 64, x y of 32 joints, pixels
    S1/MySegmentsMat/ground_truth_bb/Directions.54138969.mat    MATLAB 7.3 (HDF5), cells Masks: each frame's mask, 1 in the box

below the source, or below training/subjects as in the README of the released code. If the masks were not downloaded, the box is
the bounding box of the joints. Reading .cdf needs the package cdflib, the masks need h5py: the extra `human36m`.

Split (thesis 2.7, after Zhang et al. 2018): six activities; S11 is the test subject, as in the released PreProcessHuman.py,
and S1, S5, S6, S7, S8, S9 the training subjects; "1 every 50" frames for training and "1 every 100 frames for testing" (the
released script takes 10 and 50). The background is kept. Names are anatomical. The released evaluation exchanges left and right
of people seen from behind, which an image detector cannot tell apart (thesis 7.1); this reader does not.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Box, Sample, bounding_box
from ray_kplm.datasets.readers.layout import Distribution, Layout, interlandmark_distance
from ray_kplm.datasets.readers.video import open_video
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

HUMAN36M = Distribution("Human3.6M", "http://vision.imar.ro/human3.6m/", "on request, academic use only")
SUBJECTS = {TRAIN: ("S1", "S5", "S6", "S7", "S8", "S9"), TEST: ("S11",)}
ACTIVITIES = ("Directions", "Discussion", "Greeting", "Posing", "Waiting", "Walking")
STEP = {TRAIN: 50, TEST: 100}
"""Every STEP-th frame is used."""
JOINTS = {
    "pelvis": 0,
    "right_hip": 1,
    "right_knee": 2,
    "right_ankle": 3,
    "left_hip": 6,
    "left_knee": 7,
    "left_ankle": 8,
    "spine": 12,
    "thorax": 13,
    "neck": 14,
    "head": 15,
    "left_shoulder": 17,
    "left_elbow": 18,
    "left_wrist": 19,
    "right_shoulder": 25,
    "right_elbow": 26,
    "right_wrist": 27,
}
"""Index of the 17 common joints among the 32."""
LANDMARKS = tuple(JOINTS)

_ALL_JOINTS = 32
_ROOTS = ("", "training/subjects/", "extracted/")


def list_human36m(source: Folder, options: IngestOptions) -> Listing:
    """List Human3.6M."""
    layout = Layout(source, HUMAN36M, options)
    if not source.is_local:
        raise DataError(f"{source}: videos are read from a local disk only; copy them there")
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    for split, subjects in SUBJECTS.items():
        for subject in subjects:
            videos = layout.locate(*(f"{root}{subject}/Videos" for root in _ROOTS))
            home = videos.removesuffix("/Videos")
            poses = layout.locate(f"{home}/MyPoseFeatures/D2_Positions", f"{home}/Poses_D2_Positions")
            layout.files(poses, (".cdf",))
            for video in layout.files(videos, (".mp4",)):
                if _activity(video) in ACTIVITIES:
                    splits[split] += _samples(layout, video, subject, poses, STEP[split])
    nme = interlandmark_distance(LANDMARKS, "left_shoulder", "right_shoulder")
    return layout.listing(splits, LANDMARKS, nme, read_annotation=read_annotation, opener=open_video)


def _activity(video: str) -> str:
    """Return the activity of a video: `Walking` for `S1/Videos/Walking 1.54138969.mp4`; `WalkingDog` is another one."""
    return posixpath.basename(video).partition(".")[0].rstrip(" 0123456789")


def _samples(layout: Layout, video: str, subject: str, poses: str, step: int) -> Iterator[Sample]:
    """Yield every `step`-th frame of a video."""
    name = posixpath.splitext(posixpath.basename(video))[0]
    try:
        xy = _read_poses(f"{layout.source.path}/{poses}/{name}.cdf")
    except DataError as error:
        layout.reject(video, str(error))
        return
    for frame in range(0, len(xy), step):
        annotation = {"landmarks": xy[frame], "group": subject}
        yield Sample(f"{video}#{frame}", video, annotation=annotation, frame=(video, frame))


def _read_poses(path: str) -> NDArray[np.float64]:
    """Return the joints of all frames of a video: (frames, 17, 2)."""
    try:
        import cdflib
    except ImportError:
        raise DataError('Human3.6M needs the package cdflib; install it by `pip install ".[human36m]"`') from None
    try:
        values = np.asarray(cdflib.CDF(path).varget("Pose"), dtype=np.float64)
        return values.reshape(-1, _ALL_JOINTS, 2)[:, list(JOINTS.values())]
    except Exception as error:  # on damaged and on missing files cdflib raises exceptions of many kinds
        raise DataError(
            f"no landmarks: {path} is no CDF with a variable Pose: {' '.join(str(error).split())}"
        ) from None


def read_annotation(source: Folder, sample: Sample) -> Sample:
    """Add the box of a frame: that of its mask, or that of the joints if the masks were not downloaded."""
    assert sample.annotation is not None
    assert sample.frame is not None
    home, _, video = sample.path.rpartition("/Videos/")
    masks = f"{home}/MySegmentsMat/ground_truth_bb"
    if not source.exists(masks):
        return sample._replace(box=bounding_box(sample.annotation["landmarks"]))
    return sample._replace(box=_read_box(f"{source.path}/{masks}/{video[: -len('.mp4')]}.mat", sample.frame[1]))


def _read_box(path: str, frame: int) -> Box:
    """Return the bounding box of a frame's mask."""
    try:
        import h5py
    except ImportError:
        raise DataError('Human3.6M\'s boxes need the package h5py; install it by `pip install ".[human36m]"`') from None
    try:
        with h5py.File(path) as file:
            mask = file[file["Masks"][frame][0]][:].T  # MATLAB stores columns first
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise DataError(f"no box: {path}, frame {frame}: {' '.join(str(error).split())}") from None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise DataError(f"no box: {path}, frame {frame}: an empty mask")
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
