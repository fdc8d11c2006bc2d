"""CatHeads, from the folders CAT_00 ... and the two lists."""

import numpy as np
import pytest

from ray_kplm.datasets.readers.catheads import LANDMARKS, list_catheads
from ray_kplm.errors import DataError

# The first file of the data set, as public loaders quote it.
FIRST = "9 175 160 239 162 199 199 149 121 137 78 166 93 281 101 312 96 296 133 "
XY = np.array(FIRST.split()[1:], dtype=float).reshape(9, 2)


@pytest.fixture
def cats(source):
    for image in ("CAT_00/00000001_000.jpg", "CAT_00/00000001_005.jpg", "CAT_03/00000700_012.jpg"):
        source.picture(image, XY[4], width=400, height=300)
        source.text(f"{image}.cat", FIRST)
    source.picture("CAT_06/00001406_019.jpg")  # in no list
    source.text("cat_train_images.txt", "00000001_000.jpg", "00000001_005.jpg")
    source.text("cat_data/cat_test_images.txt", "CAT_03/00000700_012.png")
    return source


def test_splits_landmarks_and_crops_are_those_of_the_files(cats):
    read = cats.read(list_catheads, size=400)
    assert read.splits == {
        "train": {"CAT_00/00000001_000.jpg", "CAT_00/00000001_005.jpg"},
        "test": {"CAT_03/00000700_012.jpg"},
    }
    for image in read.images:
        assert np.allclose(read.in_source(image), XY, atol=1e-3)
        assert np.abs(read.light(image) - read.points(image)[4]).max() < 0.2
        assert read.box_in_source(image) == [137, 78, 312, 199]
    assert read.rejected == {}


def test_names_and_swap_pairs_mirror_a_head(cats):
    meta = cats.read(list_catheads).listing.meta
    names = "left_eye right_eye mouth left_ear_1 left_ear_2 left_ear_3 right_ear_1 right_ear_2 right_ear_3"
    assert meta["landmark_names"] == names.split() == list(LANDMARKS)
    # Exchanged by its pairs, the mirrored first head of the data set is closer to itself than in any other order of the ears.
    mirrored = XY * [-1, 1]
    order = np.arange(9)
    for a, b in meta["swap_pairs"]:
        order[[a, b]] = b, a
    assert _distance(mirrored[order], XY) < _distance(mirrored[[1, 0, 2, 6, 7, 8, 3, 4, 5]], XY)
    assert meta["nme"] == {"type": "interocular", "left": [0], "right": [1]}


def _distance(a, b):
    return np.linalg.norm((a - a.mean(0)) - (b - b.mean(0)), axis=1).mean()


def test_broken_annotation_and_missing_pictures_are_rejected(cats):
    cats.text("CAT_00/00000001_000.jpg.cat", "9 175 160 239 162 199")
    cats.remove("CAT_00/00000001_005.jpg")
    read = cats.read(list_catheads)
    assert read.splits == {"train": set(), "test": {"CAT_03/00000700_012.jpg"}}
    assert read.rejected == {"CAT_00/00000001_000.jpg": "bad annotation", "00000001_005": "missing"}


def test_missing_lists_are_an_error(cats):
    cats.remove("cat_train_images.txt")
    with pytest.raises(DataError, match=r"cat_train_images\.txt.*Zhang et al\. 2018.*lists of your own.*terms"):
        cats.read(list_catheads)


def test_hidden_files_beside_the_pictures_do_not_exist(cats):
    before = cats.read(list_catheads)
    for path in [path for path in cats.root.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7" + bytes(60))
    (cats.root / "__MACOSX/CAT_00").mkdir(parents=True)
    after = cats.read(list_catheads)
    assert (after.splits, after.rejected) == (before.splits, before.rejected)
    assert after.listing.identity == before.listing.identity
