"""COCO's keypoint format."""

import json

import numpy as np
import pytest

from ray_kplm.datasets.readers.coco import list_coco
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

NAMES = ["nose", "left_eye", "right_eye", "left_hip", "right_hip"]
CATEGORIES = [{"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2]]}, {"id": 3, "name": "car"}]


def keypoints(xy, states=(2, 2, 2, 2, 2)) -> list:
    return np.column_stack([xy * (np.array(states) > 0)[:, None], states]).ravel().tolist()


@pytest.fixture
def coco(source, scattered):
    """Two people in the first training image, none that counts in the second, one in the validation image."""

    def row(number, image, points, **more):
        base = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [10, 12, 70, 60]}
        return {**base, "keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3]), **more}

    xy = [scattered(5, seed=seed) for seed in range(3)]
    train = {
        "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25, "file_name": "000000000025.jpg"}],
        "annotations": [
            row(1, 9, keypoints(xy[0])),
            row(2, 9, keypoints(xy[1], (2, 1, 0, 2, 2))),
            row(3, 25, keypoints(xy[1]), iscrowd=1),
            row(4, 25, [0] * 15),
            {"id": 5, "image_id": 25, "category_id": 3, "iscrowd": 0, "bbox": [1, 1, 20, 20]},
        ],
        "categories": CATEGORIES,
    }
    val = {
        "images": [{"id": 139, "file_name": "000000000139.jpg"}],
        "annotations": [row(6, 139, keypoints(xy[2]))],
        "categories": CATEGORIES,
    }
    source.text("annotations/person_keypoints_train2017.json", json.dumps(train))
    source.text("annotations/person_keypoints_val2017.json", json.dumps(val))
    source.text("annotations/instances_train2017.json", "{}")
    source.picture("train2017/000000000009.jpg", xy[0][0])
    source.picture("train2017/000000000025.jpg")
    source.picture("val2017/000000000139.jpg", xy[2][0])
    return source


def changed(source, name, change) -> None:
    path = source.root / f"annotations/person_keypoints_{name}2017.json"
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


FIRST, SECOND, TESTED = "train2017/000000000009.jpg#0", "train2017/000000000009.jpg#1", "val2017/000000000139.jpg#0"


def test_people_with_keypoints_are_read(coco, scattered):
    read = coco.read(list_coco)
    assert read.splits == {"train": {FIRST, SECOND}, "test": {TESTED}}
    assert read.rejected == {}
    assert np.allclose(read.in_source(TESTED), scattered(5, seed=2), atol=1e-3)
    expected = scattered(5, seed=1)
    expected[2] = np.nan
    assert np.allclose(read.in_source(SECOND), expected, atol=1e-3, equal_nan=True)
    assert read.landmarks[SECOND]["visible"] == [True, False, False, True, True]
    assert read.box_in_source(FIRST) == [10, 12, 80, 72]
    for image in (FIRST, TESTED):
        assert np.abs(read.light(image) - read.points(image)[0]).max() < 0.3


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(coco):
    read = coco.read(list_coco)
    meta = read.listing.meta
    assert meta["landmark_names"] == NAMES
    assert meta["swap_pairs"] == [[1, 2], [3, 4]]
    boxes = np.array([read.images[FIRST]["box"]])
    assert normaliser(meta["nme"], read.points(FIRST)[None], boxes)[0] == pytest.approx(np.sqrt(70 * 60))


def test_one_file_is_split_by_image(coco):
    coco.remove("annotations/person_keypoints_val2017.json")
    (coco.root / "annotations/person_keypoints_train2017.json").rename(coco.root / "annotations/birds_all.json")
    coco.remove("annotations/instances_train2017.json")
    (coco.root / "train2017").rename(coco.root / "images")
    found = set()
    for seed in range(8):
        splits = coco.read(list_coco, test_share=0.5, seed=seed).splits
        assert {len(images) for images in splits.values()} == {0, 2}  # two objects of one image stay together
        found.add(len(splits["test"]))
    assert found == {0, 2}


def test_broken_rows_are_rejected(coco):
    def change(held):
        held["annotations"][0]["keypoints"] = [1, 2, 2]
        held["annotations"][1]["bbox"] = [10, 12, -5, 60]
        held["annotations"] += [{**held["annotations"][1], "id": 7, "image_id": 404}]
        held["annotations"] += [{**held["annotations"][1], "id": 8, "image_id": 25, "bbox": None}]

    changed(coco, "train", change)
    read = coco.read(list_coco)
    assert read.splits == {"train": set(), "test": {TESTED}}
    assert read.rejected == {
        FIRST: "bad annotation",
        SECOND: "box without area",
        "annotation 7": "missing",
        "train2017/000000000025.jpg#0": "no box",
    }


def test_errors_name_the_file(coco):
    changed(coco, "val", lambda held: held["categories"][0].update(keypoints=NAMES[::-1]))
    with pytest.raises(DataError, match=r"val2017\.json: its keypoints differ"):
        coco.read(list_coco)
    changed(coco, "val", lambda held: held["categories"].clear())
    with pytest.raises(DataError, match="0 lists of keypoints"):
        coco.read(list_coco)
    changed(coco, "val", lambda held: held.pop("images"))
    with pytest.raises(DataError, match="no COCO annotation"):
        coco.read(list_coco)
    coco.text("annotations/person_keypoints_val2017.json", "{")
    with pytest.raises(DataError, match=r"val2017\.json is no JSON"):
        coco.read(list_coco)
    coco.text("annotations/person_keypoints_2017.json", "{}")
    with pytest.raises(
        DataError, match=r"keypoints_2017\.json: of several files each name must say train, val or test"
    ):
        coco.read(list_coco)
