"""DeepFashion, from the In-shop benchmark's folders."""

import numpy as np
import pytest

from ray_kplm.datasets.readers.deepfashion import list_deepfashion
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

FULL = [f"img/WOMEN/Dresses/id_{item:08d}/{colour:02d}_4_full.jpg" for item in range(10) for colour in (1, 2)]
FRONT = "img/MEN/Denim/id_00000080/01_1_front.jpg"
UPPER, LOWER = FULL[0], FULL[3]
HIDDEN, CUT = 4, 7  # of the eight of full-body clothes


@pytest.fixture
def deepfashion(source, scattered):
    """Ten dresses in two colours; one is annotated as upper-body, one as lower-body clothes."""
    landmarks, boxes = (
        ["21", "image_name clothes_type variation_type landmark_visibility_1 ..."],
        ["21", "image_name ..."],
    )
    for number, image in enumerate([*FULL, FRONT]):
        xy = scattered(8, seed=number)
        kind, used = {UPPER: (1, [0, 1, 2, 3, 6, 7]), LOWER: (2, [4, 5, 6, 7])}.get(image, (3, list(range(8))))
        state = {HIDDEN: 1, CUT: 2}
        values = [f"{state.get(i, 0)} {int(xy[i, 0]):03d} {int(xy[i, 1]):03d}" for i in used]
        landmarks.append(f"{image}   {kind} 1 {' '.join(values)}")
        pose = 1 if image == FRONT else 4
        boxes.append(f"{image}   {kind} {pose} 010 012 080 072")
        source.picture(f"Img/{image}", xy[6])
    source.text("Anno/list_landmarks_inshop.txt", *landmarks)
    source.text("Anno/list_bbox_inshop.txt", *boxes)
    return source


def test_full_views_are_read_with_their_landmarks(deepfashion, scattered):
    read = deepfashion.read(list_deepfashion)
    assert read.splits["train"] | read.splits["test"] == set(FULL)
    assert read.rejected == {}
    for image in FULL:
        assert np.abs(read.light(image) - read.points(image)[6]).max() < 0.3
        assert read.box_in_source(image) == [10, 12, 80, 72]
    expected = scattered(8, seed=5)
    expected[CUT] = np.nan
    assert np.allclose(read.in_source(FULL[5]), expected, atol=1e-3, equal_nan=True)
    assert read.landmarks[FULL[5]]["visible"] == [i not in (HIDDEN, CUT) for i in range(8)]
    assert np.isnan(read.points(UPPER)[:, 0]).tolist() == [False] * 4 + [True] * 2 + [False, True]
    assert np.isnan(read.points(LOWER)[:, 0]).tolist() == [True] * 4 + [False] * 3 + [True]


def test_the_test_images_are_whole_items(deepfashion):
    read = deepfashion.read(list_deepfashion, test_share=0.2)
    items = {split: {image.split("/")[3] for image in images} for split, images in read.splits.items()}
    assert len(read.splits["test"]) == 4
    assert not items["train"] & items["test"]
    assert {read.landmarks[image]["group"] for image in FULL} == {f"WOMEN/Dresses/id_{i:08d}" for i in range(10)}


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(deepfashion):
    read = deepfashion.read(list_deepfashion)
    meta = read.listing.meta
    names = ["left_collar", "right_collar", "left_sleeve", "right_sleeve"]
    assert meta["landmark_names"] == [*names, "left_waistline", "right_waistline", "left_hem", "right_hem"]
    assert meta["swap_pairs"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    boxes = np.array([read.images[FULL[5]]["box"]])
    assert normaliser(meta["nme"], read.points(FULL[5])[None], boxes)[0] == pytest.approx(np.sqrt(70 * 60))


def test_broken_lines_are_rejected_and_a_missing_list_is_an_error(deepfashion):
    path = deepfashion.root / "Anno/list_landmarks_inshop.txt"
    lines = path.read_text().splitlines()
    lines[3] = " ".join(lines[3].split()[:-2])
    del lines[4]
    path.write_text("\n".join(lines))
    deepfashion.remove(f"Img/{FULL[3]}")
    read = deepfashion.read(list_deepfashion)
    assert read.rejected == {FULL[1]: "bad annotation", FULL[2]: "no landmarks", FULL[3]: "missing"}
    assert read.splits["train"] | read.splits["test"] == set(FULL) - set(FULL[1:4])
    deepfashion.remove("Anno/list_bbox_inshop.txt")
    with pytest.raises(DataError, match=r"Anno/list_bbox_inshop\.txt.*In-shop.*on request"):
        deepfashion.read(list_deepfashion)
