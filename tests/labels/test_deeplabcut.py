"""DeepLabCut's labels."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.errors import DataError

NAN = float("nan")
HEAD = "scorer,me,me,me,me\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\n"
HEAD3 = "scorer,,,me,me,me,me\nbodyparts,,,nose,nose,tail,tail\ncoords,,,x,y,x,y\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}labeled-data/day1/img01.png,10.25,20.5,,\nlabeled-data/day1/img02.png,,,1.5,2\n",
        f"{HEAD3}labeled-data,day1,img01.png,10.25,20.5,,\nlabeled-data,day1,img02.png,,,1.5,2\n",
        f"{HEAD}labeled-data\\day1\\img01.png,10.25,20.5,NaN,NaN\nlabeled-data\\day1\\img02.png,,,1.5,2\n",
    ],
    ids=["one column", "three columns", "windows"],
)
def test_the_frames_of_a_project_are_found_beside_their_labels(read, picture, text):
    paths = [picture(f"project/labeled-data/day1/img0{n}.png") for n in (1, 2)]
    picture("project/labeled-data/day2/img01.png")
    labels = read(text, "project/labeled-data/day1/CollectedData_me.csv")
    assert labels.names == ("nose", "tail")
    assert labels.images == tuple(map(str, paths))
    np.testing.assert_array_equal(labels.xy, [[[10.25, 20.5], [NAN, NAN]], [[NAN, NAN], [1.5, 2]]])
    assert labels.visible.tolist() == [[True, False], [False, True]]


def test_several_animals_are_several_objects(read, picture):
    picture("img01.png"), picture("img02.png")
    text = (
        "scorer,,,me,me,me,me\nindividuals,,,one,one,two,two\nbodyparts,,,nose,nose,nose,nose\ncoords,,,x,y,x,y\n"
        "labeled-data,day,img01.png,1,2,3,4\nlabeled-data,day,img02.png,,,5,6\n"
    )
    labels = read(text)
    assert labels.names == ("nose",)
    assert [path[-9:] for path in labels.images] == [
        "img01.png",
        "img01.png",
        "img02.png",
    ]
    np.testing.assert_array_equal(labels.xy[:, 0], [[1, 2], [3, 4], [5, 6]])


def test_unlikely_predictions_are_no_labels(read, picture):
    picture("a.png")
    head = "scorer,m,m,m,m,m,m\nbodyparts,nose,nose,nose,tail,tail,tail\ncoords,x,y,likelihood,x,y,likelihood\n"
    text = f"{head}a.png,1,2,0.9,3,4,0.1\n"
    np.testing.assert_array_equal(read(text).xy, [[[1, 2], [NAN, NAN]]])


def test_frames_without_a_label_are_counted(read, picture):
    picture("a.png")
    labels = read(f"{HEAD}a.png,1,2,3,4\nb.png,,,,\n")
    assert len(labels) == 1
    assert labels.notes == ("1 of 2 images have no labelled point: left out",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scorer,me,me\nbodyparts,nose,nose\na.png,1,2\n", "first lines must be scorer, bodyparts and coords"),
        (f"{HEAD}0,1,2,3,4\n1,1,2,3,4\n", "rows are frames of a video"),
        ("scorer,me,me,me,me\nbodyparts,a,a,a,a\ncoords,x,y,x,y\nb.png,1,2,3,4\n", "the column a x stands twice"),
        ("scorer,me,me\nbodyparts,nose,nose,tail\ncoords,x,y\n", "different numbers of cells"),
    ],
)
def test_another_header_is_refused(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_row_that_is_no_number_is_named(read, picture):
    picture("a.png"), picture("b.png")
    labels = read(f"{HEAD}a.png,1,2,3,4\nb.png,1,two,3,4\n")
    assert labels.rejected == (("b.png", "column nose y holds 'two', which is no number"),)
    assert len(labels) == 1


def test_the_hdf5_file_says_the_same(read, picture, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    picture("labeled-data/day/img1.png"), picture("labeled-data/day/img2.png")
    columns = pandas.MultiIndex.from_product(
        [["me"], ["nose", "tail"], ["x", "y"]], names=["scorer", "bodyparts", "coords"]
    )
    index = pandas.MultiIndex.from_tuples([("labeled-data", "day", f"img{n}.png") for n in (1, 2)])
    table = pandas.DataFrame([[1.25, 2, NAN, NAN], [3, 4, 5, 6.5]], index, columns)
    table.to_hdf(tmp_path / "CollectedData_me.h5", key="df_with_missing", mode="w")
    table.to_csv(tmp_path / "CollectedData_me.csv")
    binary, text = (read((tmp_path / f"CollectedData_me.{kind}").read_bytes(), kind) for kind in ("h5", "csv"))
    assert binary.names == text.names == ("nose", "tail")
    assert binary.images == text.images
    np.testing.assert_array_equal(binary.xy, [[[1.25, 2], [NAN, NAN]], [[3, 4], [5, 6.5]]])
    np.testing.assert_array_equal(text.xy, binary.xy)
