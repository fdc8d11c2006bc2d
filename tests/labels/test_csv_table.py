"""Plain CSV as labels."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.errors import DataError

NAN = float("nan")


def test_a_line_for_each_point(read, picture):
    picture("a.png"), picture("b.png")
    labels = read("image,name,x,y,visible\na.png,nose,1.5,2,1\na.png,tail,3,4,false\nb.png,tail,5,6,\n")
    assert labels.names == ("nose", "tail")
    np.testing.assert_array_equal(labels.xy, [[[1.5, 2], [3, 4]], [[NAN, NAN], [5, 6]]])
    assert labels.visible.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    "text",
    [
        "image,Nose_x,Nose_y,tail_x,tail_y,tail_v\na.png,1.5,2,3,4,1\na.png,,,5,6,2\na.png,7,8,9,9,0\n",
        "image;Nose_x;Nose_y;tail_x;tail_y;tail_v\na.png;1,5;2;3;4;1\na.png;;;5;6;2\na.png;7;8;9;9;0\n",
    ],
    ids=["commas", "semicolons and decimal commas"],
)
def test_a_line_for_each_object(read, picture, text):
    picture("a.png")
    labels = read(text)
    assert labels.names == ("Nose", "tail")
    np.testing.assert_array_equal(labels.xy, [[[1.5, 2], [3, 4]], [[NAN, NAN], [5, 6]], [[7, 8], [NAN, NAN]]])
    assert labels.visible.tolist() == [[True, False], [False, True], [True, False]]


def test_objects_of_an_image_are_told_apart_or_refused(read, picture):
    picture("a.png"), picture("b.png")
    told = read("image,object,name,x,y\na.png,1,nose,1,1\na.png,2,nose,2,2\n")
    np.testing.assert_array_equal(told.xy[:, 0], [[1, 1], [2, 2]])
    mixed = read("image,name,x,y\na.png,nose,1,1\na.png,nose,2,2\nb.png,nose,3,3\n")
    assert len(mixed) == 1
    assert mixed.rejected == (("a.png", "has several points named nose; tell its objects apart by a column object"),)


def test_numbered_landmarks_keep_their_order(read, picture):
    picture("a.png")
    labels = read("image_id,landmark,x,y\na.png,10,1,1\na.png,2,2,2\n")
    assert labels.names == ("landmark_2", "landmark_10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,nose_x,nose_y\na.png,1,2\n", "has no column image, but picture, nose_x, nose_y"),
        ("image,nose_x\na.png,1\n", "column nose_x has no partner"),
        ("image,nose_y\na.png,1\n", "column nose_y has no partner"),
        ("image,a,b\na.png,1,2\n", "has the columns image, a, b; write image,name,x,y"),
        ("image,nose_x,nose_y,nose_x\na.png,1,2,3\n", "column nose_x stands twice"),
        ("image,nose_x,nose_y\n", "no object has an annotated point"),
        ("", "is empty"),
    ],
)
def test_another_heading_is_refused(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_cells_that_are_no_numbers_and_short_lines_are_named(read, picture):
    picture("a.png")
    labels = read("image,nose_x,nose_y\na.png,1,2\na.png,left,2\na.png,3\n", "points.csv")
    assert len(labels) == 1
    assert labels.rejected[0] == ("a.png", "column nose_x holds 'left', which is no number")
    assert labels.rejected[1][0].endswith("points.csv line 4")
    assert labels.rejected[1][1].startswith("2 cells")
