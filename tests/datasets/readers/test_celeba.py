"""CelebA with MAFL, from a folder as its authors unpack it."""

import numpy as np
import pytest

from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.readers.celeba import list_celeba
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser
from ray_kplm.storage import Folder

POINTS = {f"{i:06d}.jpg": [69, 111 + i, 108, 111, 88, 135, 73, 152, 107, 152] for i in range(1, 8)}
PARTITION = dict(zip(POINTS, "0000122", strict=True))
"""000004 is a training, 000006 a test image of CelebA that MAFL tests on; 000003 and 000005 are among its training images."""


@pytest.fixture
def celeba(source):
    for image, xy in POINTS.items():
        source.picture(f"Img/img_align_celeba/{image}", xy[:2], width=178, height=218)
    columns = (
        "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    )
    lines = [f"{image}   {'  '.join(map(str, xy))}" for image, xy in POINTS.items()]
    source.text("Anno/list_landmarks_align_celeba.txt", str(len(POINTS)), columns, *lines)
    source.text("Eval/list_eval_partition.txt", *(f"{image} {part}" for image, part in PARTITION.items()))
    source.text("MAFL/training.txt", "000003.jpg", "000005.jpg")
    source.text("MAFL/testing.txt", "000006.jpg", "000004.jpg")
    return source


def test_splits_landmarks_and_crops_are_those_of_the_files(celeba):
    read = celeba.read(list_celeba)
    assert read.splits == {"train": {"000001.jpg", "000002.jpg", "000003.jpg"}, "test": {"000004.jpg", "000006.jpg"}}
    assert read.rejected == {}
    for image in read.images:
        assert np.allclose(read.in_source(image).ravel(), POINTS[image], atol=1e-3)
        assert np.abs(read.light(image) - read.points(image)[0]).max() < 0.3
        assert read.box_in_source(image) == [27, 57, 150, 180]
        assert (read.images[image]["width"], read.images[image]["height"]) == (174, 174)
    assert {image: read.attributes(image)["mafl"] for image in read.images} == {
        "000001.jpg": 0,
        "000002.jpg": 0,
        "000003.jpg": 1,
        "000004.jpg": 1,
        "000006.jpg": 1,
    }


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(celeba):
    read = celeba.read(list_celeba)
    meta = read.listing.meta
    assert meta["landmark_names"] == ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
    assert meta["swap_pairs"] == [[0, 1], [3, 4]]
    assert "non-commercial" in meta["licence"]
    xy = read.points("000001.jpg")
    assert normaliser(meta["nme"], xy[None], np.zeros((1, 4)))[0] == pytest.approx(np.hypot(39, 1))


def test_broken_and_missing_images_are_rejected_and_the_others_are_read(celeba):
    celeba.remove("Img/img_align_celeba/000001.jpg")
    celeba.content("Img/img_align_celeba/000004.jpg", b"\xff\xd8 half a picture")
    path = celeba.root / "Anno/list_landmarks_align_celeba.txt"
    path.write_text(path.read_text().replace("69  113", "69"))  # of 000002, a number less
    read = celeba.read(list_celeba)
    assert read.splits == {"train": {"000003.jpg"}, "test": {"000006.jpg"}}
    assert read.rejected == {"000001.jpg": "missing", "000002.jpg": "bad annotation", "000004.jpg": "not an image"}


@pytest.mark.parametrize("file", ["Anno/list_landmarks_align_celeba.txt", "MAFL/testing.txt"])
def test_a_missing_file_says_what_to_download_where_it_goes_and_the_terms(celeba, file):
    celeba.remove(file)
    with pytest.raises(DataError, match=rf"{file}.*download .* from https://.*terms: non-commercial.*put it there"):
        celeba.read(list_celeba)


def test_boxes_of_the_user_are_refused(celeba):
    with pytest.raises(DataError, match="has its own annotation"):
        list_celeba(Folder.at(celeba.root), IngestOptions(boxes="boxes.csv"))


def test_identity_follows_the_content(celeba):
    before = celeba.read(list_celeba).listing.identity
    assert celeba.read(list_celeba).listing.identity == before
    celeba.text("MAFL/testing.txt", "000006.jpg")
    assert celeba.read(list_celeba).listing.identity != before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_that_a_spreadsheet_saved_are_read(celeba, encoding):
    before = celeba.read(list_celeba)
    for path in celeba.root.rglob("*.txt"):
        lines = path.read_text().splitlines()
        rows = [", ".join(line.split()) for line in [*lines, lines[0], lines[1], ""]]
        path.write_bytes("\r\n".join(rows).encode(encoding))
    after = celeba.read(list_celeba)
    assert (after.splits, after.rejected) == (before.splits, before.rejected)


def test_aligned_pictures_of_another_scale_are_read_and_those_of_another_shape_rejected(celeba):
    celeba.picture("Img/img_align_celeba/000001.jpg", width=356, height=436)
    celeba.picture("Img/img_align_celeba/000002.jpg", width=1024, height=1024)
    celeba.picture("Img/img_align_celeba/000006.jpg", width=128, height=128)
    read = celeba.read(list_celeba)
    assert read.rejected == {"000002.jpg": "other size", "000006.jpg": "other size"}
    scaled = (np.array(POINTS["000001.jpg"]) + 0.5) * 2 - 0.5
    assert np.allclose(read.in_source("000001.jpg").ravel(), scaled, atol=1e-3)
    assert read.box_in_source("000001.jpg") == [54.5, 114.5, 300.5, 360.5]


def test_the_report_says_how_many_ids_matched(celeba):
    celeba.text("MAFL/training.txt", "000003.jpg", "999999.jpg")
    celeba.remove("Img/img_align_celeba/000001.jpg")
    note = "matched: landmarks 7 of 7, MAFL's training list 1 of 2, MAFL's test list 2 of 2, pictures 4 of 5"
    assert celeba.read(list_celeba).listing.notes == (note,)
