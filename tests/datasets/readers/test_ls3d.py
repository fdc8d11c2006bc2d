"""300W-LP and LS3D-W balanced, from their two downloads."""

import math
import struct

import numpy as np
import pytest

from ray_kplm.datasets.readers.ls3d import list_300wlp, list_ls3d
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

BALANCED = "LS3D-W-balanced-20-03-2017/new_dataset"
VIEWS = ("AFW/AFW_134212_1_0", "AFW/AFW_134212_1_5", "HELEN/HELEN_30427236_2_0", "LFPW/LFPW_image_test_0001_3")


def torch7(xy) -> bytes:
    """A torch.DoubleTensor 68 x 2, by torch7's doc/serialization.md."""
    parts = [struct.pack("<iii3si", 4, 1, 3, b"V 1", 18), b"torch.DoubleTensor", struct.pack("<i", 2)]
    parts += [struct.pack("<5q", 68, 2, 2, 1, 1), struct.pack("<iii3si", 4, 2, 3, b"V 1", 19), b"torch.DoubleStorage"]
    return b"".join([*parts, struct.pack("<q", 136), xy.astype("<f8").tobytes()])


@pytest.fixture
def downloads(source, scattered):
    for number, view in enumerate(VIEWS):
        xy = scattered(68, seed=number)
        source.picture(f"300W_LP/{view}.jpg", xy[30], width=120, height=120)
        pose = np.array([[0.1, math.radians(-40 + 20 * number), 0, 50, 50, 0, 1e-3]])
        source.mat(f"300W_LP/{view}.mat", Pose_Para=pose, pt2d=xy.T)
        source.mat(f"300W_LP/landmarks/{view}_pts.mat", pts_2d=xy + 3, pts_3d=xy)
    source.picture("300W_LP/AFW_Flip/AFW_134212_1_0.jpg")
    for number in range(1, 7):
        xy = scattered(68, seed=100 + number)
        source.picture(f"{BALANCED}/{number}.jpg", xy[30], width=120, height=120)
        source.content(f"{BALANCED}/{number}.t7", torch7(xy))
    return source


def test_300w_lp_is_the_training_split_and_balanced_the_test_split(downloads, scattered):
    read = downloads.read(list_ls3d)
    assert read.splits == {
        "train": {f"300W_LP/{view}.jpg" for view in VIEWS},
        "test": {f"{BALANCED}/{number}.jpg" for number in range(1, 7)},
    }
    assert read.rejected == {}
    truth = {f"300W_LP/{view}.jpg": scattered(68, seed=number) for number, view in enumerate(VIEWS)}
    truth |= {f"{BALANCED}/{number}.jpg": scattered(68, seed=100 + number) for number in range(1, 7)}
    for image in read.images:
        assert np.allclose(read.in_source(image), truth[image], atol=1e-3)
        assert np.abs(read.light(image) - read.points(image)[30]).max() < 0.3


def test_yaw_is_read_or_follows_from_the_number_of_the_file(downloads):
    read = downloads.read(list_ls3d)
    rendered = [read.attributes(f"300W_LP/{view}.jpg")["yaw"] for view in VIEWS]
    assert np.allclose(rendered, [-40, -20, 0, 20])
    balanced = [read.attributes(f"{BALANCED}/{number}.jpg")["yaw"] for number in range(1, 7)]
    assert balanced == [15, 45, 75, 15, 45, 75]


def test_box_is_tight_and_the_crop_has_the_forehead(downloads, scattered):
    read = downloads.read(list_ls3d, margin=0)
    image, xy = f"{BALANCED}/3.jpg", scattered(68, seed=103)
    (x0, y0), (x1, y1) = xy.min(0), xy.max(0)
    assert read.box_in_source(image) == [x0, y0, x1, y1]
    row = read.images[image]
    assert row["height"] == row["width"] == math.ceil((y1 - y0) * 4 / 3 + 1 - 1e-6)
    boxes = np.array([row["box"]])
    size = normaliser(read.listing.meta["nme"], read.points(image)[None], boxes)[0]
    assert size == pytest.approx(math.sqrt((x1 - x0) * (y1 - y0)))


def test_swap_pairs_mirror_the_points(downloads):
    meta = downloads.read(list_ls3d).listing.meta
    assert meta["landmark_names"] == [str(i) for i in range(68)]
    # The released code's shuffleLR (Bulat & Tzimiropoulos 2017), counted from 1.
    published = [(1, 17), (2, 16), (3, 15), (4, 14), (5, 13), (6, 12), (7, 11), (8, 10), (18, 27), (19, 26), (20, 25)]
    published += [(21, 24), (22, 23), (37, 46), (38, 45), (39, 44), (40, 43), (42, 47), (41, 48), (32, 36), (33, 35)]
    published += [(51, 53), (50, 54), (49, 55), (62, 64), (61, 65), (68, 66), (60, 56), (59, 57)]
    assert {frozenset(pair) for pair in meta["swap_pairs"]} == {frozenset((a - 1, b - 1)) for a, b in published}


def test_broken_annotation_is_rejected(downloads):
    downloads.content(f"{BALANCED}/2.t7", b"half a tensor")
    downloads.remove(f"{BALANCED}/3.t7")
    downloads.content(f"300W_LP/landmarks/{VIEWS[0]}_pts.mat", b"MATLAB 5.0 MAT-file, cut")
    downloads.mat(f"300W_LP/landmarks/{VIEWS[1]}_pts.mat", pts_2d=np.zeros((68, 2)))
    read = downloads.read(list_ls3d)
    assert {image: reason for image, reason in read.rejected.items() if BALANCED in image} == {
        f"{BALANCED}/2.jpg": "bad annotation",
        f"{BALANCED}/3.jpg": "no landmarks",
    }
    assert read.rejected[f"300W_LP/{VIEWS[0]}.jpg"] == "unreadable annotation"
    assert read.rejected[f"300W_LP/{VIEWS[1]}.jpg"] == "bad annotation"
    assert (len(read.splits["train"]), len(read.splits["test"])) == (2, 4)


def test_300w_lp_alone_keeps_the_views_of_a_photograph_together(downloads):
    splits = set()
    for seed in range(8):
        read = downloads.read(list_300wlp, test_share=0.5, seed=seed)
        of = {image: split for split, images in read.splits.items() for image in images}
        assert len(of) == 4
        assert of[f"300W_LP/{VIEWS[0]}.jpg"] == of[f"300W_LP/{VIEWS[1]}.jpg"]
        splits.add(tuple(of[image] for image in sorted(of)))
    assert len(splits) > 1


def test_missing_downloads_are_errors(downloads, tmp_path):
    (downloads.root / BALANCED).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"new_dataset.*download LS3D-W balanced from https://www\.adrianbulat\.com"):
        downloads.read(list_ls3d)
    (downloads.root / "300W_LP").rename(tmp_path / "elsewhere too")
    with pytest.raises(DataError, match=r"300W_LP/AFW.*download 300W-LP from http.*research only"):
        downloads.read(list_300wlp)
