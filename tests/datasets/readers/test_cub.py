"""CUB-200-2011, from the authors' folder."""

import numpy as np
import pytest

from ray_kplm.datasets.readers.cub import LANDMARKS, list_cub
from ray_kplm.errors import DataError
from ray_kplm.evaluation.normalisers import normaliser

BIRDS = {
    "1": "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
    "2": "014.Indigo_Bunting/Indigo_Bunting_0001_1.jpg",
    "3": "014.Indigo_Bunting/Indigo_Bunting_0002_2.jpg",
    "4": "062.Herring_Gull/Herring_Gull_0003_3.jpg",
    "5": "087.Mallard/Mallard_0004_4.jpg",
}
LEFT_EYE, RIGHT_EYE, BEAK = map(LANDMARKS.index, ("left_eye", "right_eye", "beak"))
RIGHT_EYE_ALONE, BOTH_EYES = "3", "5"


@pytest.fixture
def cub(source, scattered):
    names = [name.replace("_", " ") for name in LANDMARKS]
    places = {bird: scattered(15, seed=int(bird)) for bird in BIRDS}
    locations = []
    for bird, path in BIRDS.items():
        for part, (x, y) in enumerate(places[bird]):
            hidden = {RIGHT_EYE_ALONE: LEFT_EYE, BOTH_EYES: None}.get(bird, RIGHT_EYE)
            seen = int(part != hidden)
            locations.append(f"{bird} {part + 1} {x * seen} {y * seen} {seen}")
        source.picture(f"CUB_200_2011/images/{path}", places[bird][BEAK])
    source.text("CUB_200_2011/images.txt", *(f"{bird} {path}" for bird, path in BIRDS.items()))
    source.text("CUB_200_2011/train_test_split.txt", *(f"{bird} {int(bird != '5')}" for bird in BIRDS))
    source.text("CUB_200_2011/bounding_boxes.txt", *(f"{bird} 10.0 12.0 70.0 60.0" for bird in BIRDS))
    source.text("CUB_200_2011/parts/parts.txt", *(f"{i} {name}" for i, name in enumerate(names, start=1)))
    source.text("CUB_200_2011/parts/part_locs.txt", *locations)
    return source


def test_land_birds_are_read_with_their_parts(cub, scattered):
    read = cub.read(list_cub)
    assert read.splits == {"train": {BIRDS["2"], BIRDS["3"]}, "test": {BIRDS["5"]}}
    assert read.rejected == {}
    expected = scattered(15, seed=2)
    expected[RIGHT_EYE] = np.nan
    assert np.allclose(read.in_source(BIRDS["2"]), expected, atol=1e-3, equal_nan=True)
    assert np.allclose(read.in_source(BIRDS[BOTH_EYES]), scattered(15, seed=5), atol=1e-3)
    assert all(read.landmarks[BIRDS[BOTH_EYES]]["visible"])
    assert read.box_in_source(BIRDS["2"]) == [10, 12, 80, 72]
    assert read.landmarks[BIRDS["2"]]["visible"] == [part != RIGHT_EYE for part in range(15)]
    for image in read.images:
        assert np.abs(read.light(image) - read.points(image)[BEAK]).max() < 0.3


def test_a_bird_that_shows_only_its_right_eye_is_mirrored(cub, scattered):
    read = cub.read(list_cub)
    image, truth = BIRDS[RIGHT_EYE_ALONE], scattered(15, seed=3)
    found = read.in_source(image)
    assert np.allclose(found[LEFT_EYE], truth[RIGHT_EYE], atol=1e-3)
    assert np.isnan(found[RIGHT_EYE]).all()
    wings = [LANDMARKS.index("left_wing"), LANDMARKS.index("right_wing")]
    assert np.allclose(found[wings], truth[wings[::-1]], atol=1e-3)
    assert np.allclose(found[BEAK], truth[BEAK], atol=1e-3)
    # In the crop, left is right: a part further left in the picture lies further right.
    assert np.sign(read.points(image)[BEAK, 0] - read.points(image)[0, 0]) == -np.sign(truth[BEAK, 0] - truth[0, 0])
    x0, y0, x1, y1 = read.images[image]["box"]
    assert (x1 - x0, y1 - y0) == pytest.approx((70, 60))


def test_names_swap_pairs_and_normaliser_are_those_of_the_data_set(cub):
    read = cub.read(list_cub)
    meta = read.listing.meta
    pairs = [(meta["landmark_names"][a], meta["landmark_names"][b]) for a, b in meta["swap_pairs"]]
    assert pairs == [("left_eye", "right_eye"), ("left_leg", "right_leg"), ("left_wing", "right_wing")]
    boxes = np.array([read.images[BIRDS["5"]]["box"]])
    assert normaliser(meta["nme"], read.points(BIRDS["5"])[None], boxes)[0] == pytest.approx(np.sqrt(70 * 60))


def test_broken_and_missing_birds_are_rejected(cub):
    cub.content(f"CUB_200_2011/images/{BIRDS['2']}", b"")
    path = cub.root / "CUB_200_2011/bounding_boxes.txt"
    path.write_text(path.read_text().replace("5 10.0 12.0 70.0 60.0", "5 10.0 12.0 0.0 60.0"))
    path = cub.root / "CUB_200_2011/parts/part_locs.txt"
    lines = path.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("3 1 "))
    path.write_text("\n".join([*lines[:at], "3 1 12.0", "3 2 left 30.0 1", *lines[at + 2 :]]))
    read = cub.read(list_cub)
    assert read.rejected == {
        BIRDS["2"]: "empty file",
        "CUB_200_2011/parts/part_locs.txt: 3": "bad annotation",
        BIRDS["3"]: "bad annotation",
        BIRDS["5"]: "box without area",
    }
    assert read.splits == {"train": set(), "test": set()}
    cub.remove("CUB_200_2011/parts/part_locs.txt")
    with pytest.raises(DataError, match=r"CUB_200_2011/parts/part_locs\.txt; download CUB-200-2011 from https"):
        cub.read(list_cub)
