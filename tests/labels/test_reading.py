"""Labels joined with their images: where images are looked for, and which ones do not fit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ray_kplm.errors import DataError
from tests.labels.test_coco import coco

NAN = float("nan")


def csv_of(*names, x=1.0, y=2.0):
    return "image,nose_x,nose_y\n" + "".join(f"{name},{x},{y}\n" for name in names)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("a.png", "labels/a.png"),
        ("./sub/a.png", "labels/sub/a.png"),
        ("sub\\a.png", "labels/sub/a.png"),
        ("a.png", "labels/images/a.png"),
        ("sub/a.png", "sub/a.png"),
        ("/home/other/set/sub/a.png", "labels/deep/sub/a.png"),
        ("C:\\Users\\me\\a.png", "labels/deep/a.png"),
        ("gone/a.png", "labels/deep/a.png"),
        ("u\u0308.png", "labels/deep/\u00fc.png"),
    ],
)
def test_images_are_found_beside_the_file_and_by_the_end_of_their_path(read, picture, name, at):
    path = picture(at)
    assert read(csv_of(name), "labels/points.csv").images == (str(path),)


def test_the_given_folder_goes_before_what_is_beside_the_file(read, picture, tmp_path):
    picture("a.png")
    path = picture("there/x/a.png")
    assert read(csv_of("a.png"), images=tmp_path / "there").images == (str(path),)


def test_of_several_files_of_a_name_the_path_decides(read, picture, tmp_path):
    paths = [picture(f"photos/{day}/a.png") for day in ("one", "two")]
    picture("photos/b.png")
    labels = read(csv_of("photos/two/a.png", "a.png", "b.png"), images=tmp_path / "photos")
    assert labels.images[0] == str(paths[1])
    assert labels.rejected == (("a.png", "2 files have this name: one/a.png, two/a.png"),)


def test_one_file_is_not_that_of_two_names(read, picture, tmp_path):
    picture("photos/one/a.png")
    labels = read(csv_of("one/a.png", "two/a.png"), images=tmp_path / "photos")
    assert len(labels) == 1
    assert labels.rejected[0][0] == "two/a.png"
    assert labels.rejected[0][1].startswith("no such image; ")


def test_missing_images_are_rejected_and_none_at_all_is_an_error(read, picture, tmp_path):
    picture("a.png")
    assert read(csv_of("a.png", "b.png")).rejected == (("b.png", "no such image"),)
    with pytest.raises(DataError, match=r"none of its 2 images is found, e.g. 'b.png' .*; looked in .*--images FOLDER"):
        read(csv_of("b.png", "c.png"))
    with pytest.raises(DataError, match="no such folder of images"):
        read(csv_of("a.png"), images=tmp_path / "nowhere")


def test_points_outside_of_the_picture_are_not_used(read, picture):
    picture("a.png"), picture("b.png")
    text = "image,nose_x,nose_y,tail_x,tail_y\na.png,65,-2,70,9\nb.png,900,900,-9,0\n"
    labels = read(text)
    np.testing.assert_array_equal(labels.xy, [[[65, -2], [NAN, NAN]]])
    assert labels.rejected[0] == ("a.png", "point tail at 70.0, 9.0 is outside of the picture of 64 x 48 px: not used")
    assert [name for name, _ in labels.rejected] == ["a.png", "b.png", "b.png"]


def test_an_image_of_another_size_is_refused(read, picture):
    picture("a.png"), picture("b.png", (32, 24))
    rows = coco()
    rows["images"].append({"id": 8, "file_name": "b.png", "width": 64, "height": 48})
    rows["annotations"].append({**rows["annotations"][0], "id": 2, "image_id": 8})
    labels = read(rows)
    assert len(labels) == 1
    assert labels.rejected == (
        ("b.png", "labels and image do not match: annotated at 64 x 48 px, the file has 32 x 24 px"),
    )
    rows["images"], rows["annotations"] = rows["images"][1:], rows["annotations"][1:]
    with pytest.raises(
        DataError, match=r"none of 1 annotated objects can be used, e.g. b.png: labels and image do not match"
    ):
        read(rows)


def test_the_size_is_that_of_the_upright_picture(read, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("a.jpg", (48, 64), exif=exif)
    picture("b.jpg", (64, 48), exif=exif)
    rows = coco(
        images=[{"id": n, "file_name": f"{name}.jpg", "width": 64, "height": 48} for n, name in ((7, "a"), (8, "b"))]
    )
    rows["annotations"].append({**rows["annotations"][0], "id": 2, "image_id": 8})
    labels = read(rows)
    assert [path[-5:] for path in labels.images] == ["a.jpg"]
    assert labels.rejected[0][1].endswith("48 x 64 px, which is turned by its EXIF")


def test_a_file_that_is_no_image_is_rejected(read, picture, tmp_path):
    picture("a.png")
    (tmp_path / "b.png").write_text("no image")
    stream = io.BytesIO()
    Image.new("RGB", (64, 48)).save(stream, "BMP")
    (tmp_path / "c.bmp").write_bytes(stream.getvalue())
    labels = read(csv_of("a.png", "b.png", "c.bmp"))
    assert len(labels) == 2
    assert labels.rejected == (("b.png", "not an image"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{broken", "is no JSON"),
        (b'{"shapes": []}', "this one has shapes; known are COCO keypoints"),
        (b"PK\x03\x04...", "is an Excel or ZIP file"),
        (b"  \n", "is empty"),
    ],
)
def test_files_of_other_kinds_are_refused(read, content, message):
    with pytest.raises(DataError, match=message):
        read(content)


def test_no_file_and_a_folder_are_refused(read, tmp_path):
    from ray_kplm.labels.reading import read_labels

    with pytest.raises(DataError, match=r"nothing\.json: no such file"):
        read_labels(tmp_path / "nothing.json")
    with pytest.raises(DataError, match="is a folder; name the file"):
        read_labels(tmp_path)
