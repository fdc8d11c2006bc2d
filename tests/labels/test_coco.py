"""COCO keypoints as labels."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.errors import DataError

NAN = float("nan")


def coco(**changes):
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "mouse", "keypoints": ["nose", "tail", "ear"], "skeleton": [[1, 2], [2, 3]]}],
        "annotations": [
            {
                "id": 1, "image_id": 7, "category_id": 1, "bbox": [2, 3, 20, 30],
                "keypoints": [10.25, 20.5, 2, 30, 5.5, 1, 0, 0, 0],
            }
        ],
    }  # fmt: skip
    return content | changes


def test_points_boxes_states_and_skeleton_are_those_of_the_file(read, picture):
    path = picture("a.png")
    labels = read(coco())
    assert labels.names == ("nose", "tail", "ear")
    assert labels.images == (str(path),)
    np.testing.assert_array_equal(labels.xy, [[[10.25, 20.5], [30, 5.5], [NAN, NAN]]])
    assert labels.visible.tolist() == [[True, False, False]]
    np.testing.assert_array_equal(labels.boxes, [[2, 3, 22, 33]])
    assert labels.skeleton == ((0, 1), (1, 2))
    assert labels.rejected == ()
    assert labels.notes == ("annotated in no image: ear",)


def test_objects_without_a_box_and_several_in_an_image_are_read(read, picture):
    picture("a.png")
    first = coco()["annotations"][0]
    second = {**first, "id": 2, "keypoints": [0, 0, 0, 5, 6, 2, 7, 8, 2]}
    del second["bbox"]
    labels = read(coco(annotations=[first, second]))
    assert len(labels) == 2
    assert len(set(labels.images)) == 1
    assert np.isnan(labels.boxes[1]).all()
    assert np.isfinite(labels.boxes[0]).all()


def test_crowds_and_unlabelled_objects_are_counted(read, picture):
    picture("a.png")
    first = coco()["annotations"][0]
    labels = read(coco(annotations=[first, {**first, "iscrowd": 1}, {**first, "keypoints": [0] * 9}]))
    assert len(labels) == 1
    assert labels.notes[0] == "objects left out: 1 crowds, 1 without a labelled keypoint"


def test_the_category_that_has_keypoints_is_taken(read, picture):
    picture("a.png")
    labels = read(coco(categories=[{"id": 2, "name": "cage"}, *coco()["categories"]]))
    assert labels.names == ("nose", "tail", "ear")


def test_categories_with_different_keypoints_are_refused_by_name(read, picture):
    picture("a.png")
    other = {"id": 2, "name": "rat", "keypoints": ["nose", "paw"]}
    with pytest.raises(DataError, match=r"2 lists of keypoints .*mouse 3, rat 2 keypoints.*export one category"):
        read(coco(categories=[*coco()["categories"], other]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"keypoints": [1, 2, 2]}, "keypoints has 3 numbers, 3 keypoints need 9"),
        ({"keypoints": [NAN, 2, 2, 0, 0, 0, 0, 0, 0]}, "no finite number"),
        ({"keypoints": [1, 2, 5, 0, 0, 0, 0, 0, 0]}, "v = 5"),
        ({"image_id": 8}, "images has no id 8"),
        ({"category_id": 9}, "category_id is 9"),
    ],
)
def test_an_object_that_cannot_be_used_is_named_and_the_others_are_used(read, picture, change, reason):
    picture("a.png")
    first = coco()["annotations"][0]
    labels = read(coco(annotations=[{**first, "id": 5, **change}, first]))
    assert len(labels) == 1
    assert labels.rejected[0][0] == "annotation 5"
    assert reason in labels.rejected[0][1]


def test_two_keypoints_of_one_name_are_refused(read, picture):
    picture("a.png")
    with pytest.raises(DataError, match="two keypoints are named nose"):
        read(coco(categories=[{"id": 1, "name": "mouse", "keypoints": ["nose", "tail", "nose"]}]))


def test_a_json_that_is_no_coco_says_what_it_lacks(read):
    with pytest.raises(DataError, match="has annotations, too; this one has categories, images"):
        read({"images": [], "categories": []})
