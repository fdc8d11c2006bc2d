"""AFLW, from a database of the authors' tables."""

import math
import sqlite3

import numpy as np
import pytest

from ray_kplm.datasets.readers.aflw import FEATURES, list_aflw
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

PICTURES = {"0/image00010.jpg": (55319,), "2/image00597.jpg": (55862, 55863), "3/image02340.jpg": (61619,)}
HIDDEN = "RightEar"


@pytest.fixture
def aflw(source, scattered):
    database = sqlite3.connect(source.local("aflw/data/aflw.sqlite"))
    database.executescript(
        """
        CREATE TABLE Faces (face_id INTEGER, file_id TEXT, db_id TEXT);
        CREATE TABLE FaceImages (image_id INTEGER, db_id TEXT, file_id TEXT, filepath TEXT, bw INTEGER, width INT, height INT);
        CREATE TABLE FaceRect (face_id INTEGER, x INTEGER, y INTEGER, w INTEGER, h INTEGER, annot_type_id INTEGER);
        CREATE TABLE FacePose (face_id INTEGER, roll REAL, pitch REAL, yaw REAL, annot_type_id INTEGER);
        CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL, annot_type_id INTEGER);
        CREATE TABLE FeatureCoordTypes (feature_id INTEGER, descr TEXT, code TEXT, x REAL, y REAL, z REAL);
        """
    )
    types = [(number, name, "", 0, 0, 0) for number, name in enumerate([*FEATURES, "HeadCenter"], start=1)]
    database.executemany("INSERT INTO FeatureCoordTypes VALUES (?, ?, ?, ?, ?, ?)", types)
    for number, (path, faces) in enumerate(PICTURES.items()):
        name = path.rpartition("/")[2]
        database.execute("INSERT INTO FaceImages VALUES (?, 'aflw', ?, ?, 0, 100, 90)", (number, name, path))
        for face in faces:
            xy = scattered(21, seed=face)
            database.execute("INSERT INTO Faces VALUES (?, ?, 'aflw')", (face, name))
            database.execute("INSERT INTO FaceRect VALUES (?, 15, 16, 60, 61, 1)", (face,))
            database.execute("INSERT INTO FacePose VALUES (?, 0, 0.1, ?, 1)", (face, math.radians(face % 100)))
            rows = [(face, place, x, y, 1) for place, (x, y) in enumerate(xy, start=1) if FEATURES[place - 1] != HIDDEN]
            database.executemany("INSERT INTO FeatureCoords VALUES (?, ?, ?, ?, ?)", [*rows, (face, 22, 5, 5, 1)])
        source.picture(f"aflw/data/flickr/{path}", scattered(21, seed=faces[0])[7])
    database.execute("INSERT INTO FaceRect VALUES (55319, 0, 0, 9, 9, 4)")  # a second opinion
    database.commit()
    database.close()
    source.text("aflw_train_images.txt", "image00010_55319.jpg", "image00597_55862.jpg")
    source.text("aflw_test_images.txt", "image02340_61619.jpg", "image02340_61619.jpg")
    return source


def test_faces_of_the_lists_are_read(aflw, scattered):
    read = aflw.read(list_aflw)
    assert read.splits == {"train": {"55319", "55862"}, "test": {"61619"}}
    assert read.rejected == {}
    for face in read.images:
        expected = scattered(21, seed=int(face))
        expected[FEATURES.index(HIDDEN)] = np.nan
        assert np.allclose(read.in_source(face), expected, atol=1e-3, equal_nan=True)
        assert np.abs(read.light(face) - read.points(face)[7]).max() < 0.3
        assert read.box_in_source(face) == [15, 16, 75, 77]
        assert read.attributes(face)["yaw"] == pytest.approx(int(face) % 100)
        visible = read.landmarks[face]["visible"]
        assert [name for name, seen in zip(FEATURES, visible, strict=True) if not seen] == [HIDDEN]
        assert read.landmarks[face]["group"] in PICTURES


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(aflw):
    read = aflw.read(list_aflw)
    meta = read.listing.meta
    names = meta["landmark_names"]
    assert len(names) == 21
    assert {"left_eye_center", "right_eye_center", "nose_center", "mouth_left_corner", "mouth_right_corner"} <= set(
        names
    )
    pairs = {frozenset((names[a], names[b])) for a, b in meta["swap_pairs"]}
    assert len(pairs) == 9  # nose, mouth and chin centres are their own
    assert frozenset(("left_brow_left_corner", "right_brow_right_corner")) in pairs
    assert frozenset(("mouth_left_corner", "mouth_right_corner")) in pairs
    xy = read.points("61619")
    eyes = np.linalg.norm(xy[names.index("left_eye_center")] - xy[names.index("right_eye_center")])
    assert normaliser(meta["nme"], xy[None], np.zeros((1, 4)))[0] == pytest.approx(eyes)


def test_an_unknown_face_and_a_missing_picture_are_rejected(aflw):
    aflw.text("aflw_train_images.txt", "image00010_55319.jpg", "image00597_55862.jpg", "image00001_39341.jpg")
    aflw.remove("aflw/data/flickr/2/image00597.jpg")
    read = aflw.read(list_aflw)
    assert read.splits["train"] == {"55319"}
    assert read.rejected == {"39341": "missing", "55862": "missing"}


def test_errors_name_the_file(aflw):
    aflw.text("aflw_test_images.txt", "image02340.jpg")
    with pytest.raises(DataError, match=r"'image02340\.jpg' names no face_id"):
        aflw.read(list_aflw)
    aflw.remove("aflw_test_images.txt")
    with pytest.raises(DataError, match=r"aflw_test_images\.txt .*download the lists of Zhang et al\. 2018"):
        aflw.read(list_aflw)
    aflw.text("aflw_test_images.txt", "image02340_61619.jpg")
    aflw.content("aflw/data/aflw.sqlite", b"no database " * 200)
    with pytest.raises(DataError, match=r"aflw\.sqlite is no database of AFLW"):
        aflw.read(list_aflw)
    aflw.remove("aflw/data/aflw.sqlite")
    with pytest.raises(DataError, match=r"aflw/data/aflw\.sqlite.*tugraz.*on request"):
        aflw.read(list_aflw)


@pytest.mark.parametrize("log", ["checkpointed", "left behind"])
def test_a_database_with_a_write_ahead_log_is_read_with_what_the_log_holds(aflw, log):
    path = aflw.root / "aflw/data/aflw.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=wal")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("UPDATE FaceRect SET w = 40 WHERE face_id = 55862")
    database.commit()
    if log == "left behind":
        files = {
            name: (aflw.root / name).read_bytes() for name in ("aflw/data/aflw.sqlite", "aflw/data/aflw.sqlite-wal")
        }
        database.close()
        for name, content in files.items():
            aflw.content(name, content)
    database.close()
    assert path.read_bytes()[18:20] == b"\2\2"
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    read = aflw.read(list_aflw)
    assert read.splits == {"train": {"55319", "55862"}, "test": {"61619"}}
    assert read.box_in_source("55862") == [15, 16, 55, 77]
    assert {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()} == before


def test_a_file_that_is_no_database_is_one_line(aflw):
    for content in (b"", b"no database", b"SQLite format 3\0" + bytes(80)):
        aflw.content("aflw/data/aflw.sqlite", content)
        with pytest.raises(DataError, match=r"aflw\.sqlite is no database of AFLW: ") as caught:
            aflw.read(list_aflw)
        assert "\n" not in str(caught.value)


def test_odd_rows_and_names_are_rejected_one_by_one(aflw):
    database = sqlite3.connect(aflw.root / "aflw/data/aflw.sqlite")
    database.execute("UPDATE FaceRect SET w = 'wide' WHERE face_id = 55319")
    database.execute("UPDATE FacePose SET yaw = 'left' WHERE face_id = 61619")
    database.execute("UPDATE FeatureCoords SET x = 'left' WHERE face_id = 55862 AND feature_id = 1")
    database.execute("UPDATE FaceImages SET bw = CAST(x'f1' AS TEXT)")
    database.commit()
    database.close()
    aflw.text("aflw_train_images.txt", "image00010_55319.jpg", "", "no face", "image00597_55862.jpg")
    read = aflw.read(list_aflw)
    assert read.splits == {"train": {"55862"}, "test": set()}
    assert read.rejected == {
        "55319": "bad annotation",
        "61619": "bad annotation",
        "aflw_train_images.txt: no": "bad name",
    }
    assert np.isnan(read.points("55862")[0]).all()


def test_pictures_that_were_scaled_are_read_and_others_rejected(aflw, scattered):
    aflw.picture("aflw/data/flickr/0/image00010.jpg", width=200, height=180)
    aflw.picture("aflw/data/flickr/3/image02340.jpg", width=128, height=128)
    read = aflw.read(list_aflw)
    assert read.rejected == {"61619": "other size"}
    expected = (scattered(21, seed=55319) + 0.5) * 2 - 0.5
    expected[FEATURES.index(HIDDEN)] = np.nan
    assert np.allclose(read.in_source("55319"), expected, atol=1e-3, equal_nan=True)


def test_a_database_without_sizes_is_read(aflw):
    database = sqlite3.connect(aflw.root / "aflw/data/aflw.sqlite")
    database.execute("ALTER TABLE FaceImages DROP COLUMN width")
    database.execute("ALTER TABLE FaceImages DROP COLUMN height")
    database.commit()
    database.close()
    assert aflw.read(list_aflw).splits == {"train": {"55319", "55862"}, "test": {"61619"}}
