"""Human3.6M, from videos, CDF and HDF5 files as the authors pack them."""

import cv2
import numpy as np
import pytest

cdflib = pytest.importorskip("cdflib")
h5py = pytest.importorskip("h5py")

from cdflib.cdfwrite import CDF  # noqa: E402

from ray_kplm.datasets.readers.human36m import LANDMARKS, list_human36m  # noqa: E402
from ray_kplm.errors import DataError  # noqa: E402
from ray_kplm.evaluation.normalisers import normaliser  # noqa: E402

SIZE = 128
HEAD, SPARE = 15, 16  # of the 32 joints
VIDEOS = {
    "S1": ("Walking 1.54138969", "WalkingDog.54138969", "Eating.54138969"),
    "S5": ("Directions.55011271",),
    "S6": ("Greeting.58860488",),
    "S7": ("Waiting 1.60457274",),
    "S8": ("Posing.54138969",),
    "S9": ("Discussion 2.54138969",),
    "S11": ("Directions 1.54138969",),
}
FRAMES = {"S1": 102, "S11": 102}


def head_at(frame: int) -> np.ndarray:
    """The head wanders through the room, another place each frame."""
    return np.array([20.0 + frame % 80, 40.0 + frame // 5])


def poses(frames: int) -> np.ndarray:
    """(frames, 32, 2)."""
    xy = np.tile(np.random.default_rng(0).integers(30, 100, (32, 2)).astype(float), (frames, 1, 1))
    xy[:, HEAD] = [head_at(frame) for frame in range(frames)]
    xy[:, SPARE] = -999  # no joint of the 17
    return xy


def write_video(path: str, frames: int) -> None:
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 50, (SIZE, SIZE))
    assert writer.isOpened()
    for frame in range(frames):
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        x, y = head_at(frame).astype(int)
        picture[y - 2 : y + 3, x - 2 : x + 3] = 255
        writer.write(picture)
    writer.release()


def write_poses(path: str, xy: np.ndarray) -> None:
    file = CDF(path, cdf_spec={"Majority": "row_major", "Compressed": 0}, delete=True)
    about = {"Variable": "Pose", "Data_Type": file.CDF_FLOAT, "Num_Elements": 1, "Rec_Vary": True}
    values = xy.reshape(1, len(xy), 64).astype(np.float32)
    file.write_var({**about, "Dim_Sizes": list(values.shape[1:]), "Compress": 0}, var_data=values)
    file.close()


def write_masks(path: str, frames: int) -> None:
    """MATLAB 7.3: a column of cells, each a reference to a mask, stored columns first."""
    with h5py.File(path, "w") as file:
        masks = file.create_dataset("Masks", (frames, 1), dtype=h5py.ref_dtype)
        for frame in range(frames):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[14:121, 12 : 111 + frame % 3] = 1
            masks[frame, 0] = file.create_dataset(f"#refs#/{frame}", data=mask.T).ref


@pytest.fixture
def human(source):
    for subject, videos in VIDEOS.items():
        for name in videos:
            frames = FRAMES.get(subject, 2)
            write_video(source.local(f"training/subjects/{subject}/Videos/{name}.mp4"), frames)
            home = f"training/subjects/{subject}"
            write_poses(source.local(f"{home}/MyPoseFeatures/D2_Positions/{name}.cdf"), poses(frames))
            if name.startswith(("Walking 1", "Directions 1")):
                write_masks(source.local(f"{home}/MySegmentsMat/ground_truth_bb/{name}.mat"), frames)
    return source


def at(subject: str, video: str, frame: int) -> str:
    return f"training/subjects/{subject}/Videos/{video}.mp4#{frame}"


def test_six_activities_are_read_every_fiftieth_and_hundredth_frame(human):
    read = human.read(list_human36m)
    train = {at("S1", "Walking 1.54138969", frame) for frame in (0, 50, 100)}
    others = ("S5", "S6", "S7", "S8", "S9")
    assert read.splits == {
        "train": train | {at(subject, VIDEOS[subject][0], 0) for subject in others},
        "test": {at("S11", "Directions 1.54138969", frame) for frame in (0, 100)},
    }
    assert read.rejected == {}
    head = LANDMARKS.index("head")
    for image in read.images:
        frame = int(image.rpartition("#")[2])
        assert np.allclose(read.in_source(image)[head], head_at(frame), atol=1e-3)
        assert np.abs(read.light(image) - read.points(image)[head]).max() < 1  # the codec blurs
        assert read.in_source(image).min() >= 20
    row = read.images[at("S1", "Walking 1.54138969", 50)]
    assert (row["sequence"], row["frame"]) == ("training/subjects/S1/Videos/Walking 1.54138969.mp4", 50)
    assert read.listing.sequences


def test_boxes_are_those_of_masks_or_else_of_joints(human):
    read = human.read(list_human36m)
    assert read.box_in_source(at("S1", "Walking 1.54138969", 100)) == [12, 14, 110 + 100 % 3, 120]
    image = at("S8", "Posing.54138969", 0)
    xy = read.in_source(image)
    assert np.allclose(read.box_in_source(image), [*xy.min(0), *xy.max(0)], atol=2e-3)


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(human):
    read = human.read(list_human36m)
    meta = read.listing.meta
    names = meta["landmark_names"]
    assert len(names) == 17
    assert [names[a].removeprefix("right_") for a, _ in meta["swap_pairs"]][:3] == ["hip", "knee", "ankle"]
    assert len(meta["swap_pairs"]) == 6
    xy = read.points(at("S11", "Directions 1.54138969", 0))
    shoulders = np.linalg.norm(xy[names.index("left_shoulder")] - xy[names.index("right_shoulder")])
    assert normaliser(meta["nme"], xy[None], np.zeros((1, 4)))[0] == pytest.approx(shoulders)


def test_broken_files_are_rejected_and_the_others_are_read(human):
    home = "training/subjects"
    write_poses(human.local(f"{home}/S1/MyPoseFeatures/D2_Positions/Walking 1.54138969.cdf"), poses(160))  # longer
    human.content(f"{home}/S5/MyPoseFeatures/D2_Positions/Directions.55011271.cdf", b"no CDF")
    human.content(f"{home}/S6/Videos/Greeting.58860488.mp4", b"no video")
    human.remove(f"{home}/S7/MyPoseFeatures/D2_Positions/Waiting 1.60457274.cdf")
    read = human.read(list_human36m)
    assert read.rejected == {
        at("S1", "Walking 1.54138969", 150): "no box",  # nor a mask, nor a frame
        f"{home}/S5/Videos/Directions.55011271.mp4": "no landmarks",
        at("S6", "Greeting.58860488", 0): "unreadable",
        f"{home}/S7/Videos/Waiting 1.60457274.mp4": "no landmarks",
    }
    assert len(read.splits["train"]) == 5


def test_frames_after_the_end_of_a_video_are_rejected(human, tmp_path):
    for folder in ("S1", "S11"):
        (human.root / f"training/subjects/{folder}/MySegmentsMat").rename(tmp_path / folder)
    write_video(human.local("training/subjects/S1/Videos/Walking 1.54138969.mp4"), 60)
    read = human.read(list_human36m)
    assert read.rejected == {at("S1", "Walking 1.54138969", 100): "truncated"}
    assert at("S1", "Walking 1.54138969", 50) in read.splits["train"]


def test_a_missing_subject_is_an_error(human, tmp_path):
    (human.root / "training/subjects/S9").rename(tmp_path / "S9")
    with pytest.raises(
        DataError, match=r"S9/Videos or .*download Human3\.6M from http://vision\.imar\.ro.*academic use"
    ):
        human.read(list_human36m)
