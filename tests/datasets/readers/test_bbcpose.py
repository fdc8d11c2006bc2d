"""BBCPose, from folders of frames and bbcpose.mat."""

import numpy as np
import pytest

from ray_kplm.datasets.readers.bbcpose import list_bbcpose
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

FIRST = {1: 101, 2: 7, 11: 1, 16: 40}
KIND = {1: "train", 2: "train", 11: "val", 16: "test"}


def joints(scattered, video: int, count: int) -> np.ndarray:
    """(2, 7, count), MATLAB's pixels."""
    return np.stack([scattered(7, seed=1000 * video + frame).T for frame in range(count)], axis=2) + 1


@pytest.fixture
def bbcpose(source, scattered):
    """Videos 1 and 2 train, 11 validates, 16 tests, 21 is of Extended BBC Pose; the others have no frames."""
    names = ["videoName", "type", "source", "train_frames", "train_joints", "test_frames", "test_joints"]
    videos = np.zeros((1, 92), dtype=[(name, object) for name in names])
    for number in range(1, 93):
        kind = KIND.get(number, "train" if number > 20 else "val")
        train, test = (25 if kind == "train" else 0), (3 if kind == "test" else 0)
        first = FIRST.get(number, 1)
        train_frames, test_frames = np.arange(first, first + train)[None], first + 11 * np.arange(test)[None]
        videos[0, number - 1] = (
            f"video{number}",
            kind,
            "buehler11",
            train_frames.astype(float),
            joints(scattered, number, train) if train else np.zeros((2, 7, 0)),
            test_frames.astype(float),
            joints(scattered, number, test) if test else np.zeros((2, 7, 0)),
        )
        if number in KIND:
            for index, frame in [*list(enumerate(train_frames[0]))[::10], *enumerate(test_frames[0])]:
                source.picture(f"{number}/{frame}.jpg", scattered(7, seed=1000 * number + index)[0])
            (source.root / str(number)).mkdir(exist_ok=True)
    source.mat("bbcpose_extbbcpose_code_1.0/bbcpose.mat", bbcpose=videos)
    return source


def test_every_tenth_frame_trains_and_annotated_frames_test(bbcpose, scattered):
    read = bbcpose.read(list_bbcpose)
    assert read.splits == {
        "train": {"1/101.jpg", "1/111.jpg", "1/121.jpg", "2/7.jpg", "2/17.jpg", "2/27.jpg"},
        "test": {"16/40.jpg", "16/51.jpg", "16/62.jpg"},
    }
    assert read.rejected == {}
    assert np.allclose(read.in_source("2/17.jpg"), scattered(7, seed=2010), atol=1e-3)
    assert np.allclose(read.in_source("16/51.jpg"), scattered(7, seed=16001), atol=1e-3)
    for image in read.images:
        assert np.abs(read.light(image) - read.points(image)[0]).max() < 0.3
    assert read.listing.sequences
    assert (read.images["2/17.jpg"]["sequence"], read.images["2/17.jpg"]["frame"]) == ("2", 17)


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(bbcpose):
    read = bbcpose.read(list_bbcpose)
    meta = read.listing.meta
    names = ["head", "right_wrist", "left_wrist", "right_elbow", "left_elbow", "right_shoulder", "left_shoulder"]
    assert meta["landmark_names"] == names
    assert meta["swap_pairs"] == [[1, 2], [3, 4], [5, 6]]
    xy = read.points("2/7.jpg")
    assert normaliser(meta["nme"], xy[None], np.zeros((1, 4)))[0] == pytest.approx(np.linalg.norm(xy[5] - xy[6]))


def test_a_missing_frame_is_rejected_and_a_missing_video_is_an_error(bbcpose, tmp_path):
    bbcpose.remove("2/17.jpg")
    assert bbcpose.read(list_bbcpose).rejected == {"2/17.jpg": "missing"}
    (bbcpose.root / "16").rename(tmp_path / "16")
    with pytest.raises(DataError, match=r"has no 16; download BBC Pose from https://www\.robots\.ox\.ac\.uk"):
        bbcpose.read(list_bbcpose)


def test_another_mat_file_is_an_error(bbcpose):
    bbcpose.mat("bbcpose_extbbcpose_code_1.0/bbcpose.mat", poses=np.zeros(3))
    with pytest.raises(DataError, match="no struct array bbcpose"):
        bbcpose.read(list_bbcpose)
    bbcpose.content("bbcpose_extbbcpose_code_1.0/bbcpose.mat", b"half")
    with pytest.raises(DataError, match="no MATLAB file"):
        bbcpose.read(list_bbcpose)
