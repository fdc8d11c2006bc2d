"""PennAction, from frames/ and labels/."""

import numpy as np
import pytest

from ray_kplm.datasets.readers.pennaction import list_pennaction
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

VIDEOS = {f"{i:04d}": "tennis_serve" for i in range(1, 8)} | {"0101": "bowl", "0102": "golf_swing"}
FRAMES = 2


@pytest.fixture
def penn(source, scattered):
    """Seven tennis serves, a golf swing, and a category that the thesis leaves out; the last box of each is missing."""
    for video, action in VIDEOS.items():
        xy = np.stack([scattered(13, seed=10 * int(video) + frame) for frame in range(FRAMES)]) + 1
        visibility = np.ones((FRAMES, 13))
        xy[0, 12], visibility[0, 12] = 1, 0  # unknown
        visibility[0, 11] = 0  # hidden
        box = np.array([[11.0, 13.0, 81.0, 73.0]])
        source.mat(
            f"Penn_Action/labels/{video}.mat",
            action=action,
            x=xy[:, :, 0],
            y=xy[:, :, 1],
            visibility=visibility,
            bbox=box,
            nframes=FRAMES,
            train=1,
        )
        for frame in range(FRAMES):
            dot = scattered(13, seed=10 * int(video) + frame)[0]
            source.picture(f"Penn_Action/frames/{video}/{frame + 1:06d}.jpg", dot)
    return source


def path(video: str, frame: int) -> str:
    return f"Penn_Action/frames/{video}/{frame:06d}.jpg"


def test_the_first_five_videos_of_a_category_are_the_test_split(penn, scattered):
    read = penn.read(list_pennaction)
    tested = ["0001", "0002", "0003", "0004", "0005", "0102"]
    assert read.splits == {
        "train": {path(video, frame) for video in ("0006", "0007") for frame in (1, 2)},
        "test": {path(video, frame) for video in tested for frame in (1, 2)},
    }
    assert read.rejected == {}
    for image in read.images:
        assert np.abs(read.light(image) - read.points(image)[0]).max() < 0.3
        assert read.box_in_source(image) == [10, 12, 80, 72]
    assert np.allclose(read.in_source(path("0003", 2)), scattered(13, seed=31), atol=1e-3)
    first = read.landmarks[path("0003", 1)]
    assert first["visible"] == [True] * 11 + [False, False]
    assert np.isnan(first["landmarks"][12]).all()
    assert not np.isnan(first["landmarks"][:12]).any()
    row = read.images[path("0006", 2)]
    assert (row["sequence"], row["frame"]) == ("0006", 2)
    assert read.listing.sequences


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(penn):
    read = penn.read(list_pennaction)
    meta = read.listing.meta
    names = ["head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"]
    names += ["left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"]
    assert meta["landmark_names"] == names
    assert meta["swap_pairs"] == [[i, i + 1] for i in range(1, 13, 2)]
    image = path("0006", 2)
    boxes = np.array([read.images[image]["box"]])
    assert normaliser(meta["nme"], read.points(image)[None], boxes)[0] == pytest.approx(np.sqrt(70 * 60))


def test_a_broken_video_is_rejected_and_does_not_count(penn):
    penn.content("Penn_Action/labels/0002.mat", b"half a file")
    penn.mat("Penn_Action/labels/0003.mat", action="tennis_serve", x=np.zeros((2, 12)), y=np.zeros((2, 12)))
    penn.remove("Penn_Action/frames/0001/000002.jpg")
    read = penn.read(list_pennaction)
    assert read.rejected == {
        "Penn_Action/labels/0002.mat": "unreadable annotation",
        "Penn_Action/labels/0003.mat": "bad annotation",
        path("0001", 2): "missing",
    }
    videos = {split: {image.split("/")[2] for image in images} for split, images in read.splits.items()}
    assert videos == {"train": set(), "test": {"0001", "0004", "0005", "0006", "0007", "0102"}}


def test_missing_labels_are_an_error(source):
    with pytest.raises(DataError, match=r"Penn_Action/labels or labels; download Penn Action from http.*research only"):
        source.read(list_pennaction)
