"""Predicted landmarks as COCO keypoints, read back by pycocotools and by sleap-io."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import sleap_io
from pycocotools.coco import COCO

from ray_kplm import schemas
from ray_kplm.inference.export import coco
from ray_kplm.inference.export.coco import to_coco
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.points.layout import Layout
from ray_kplm.storage import Folder
from tests.inference.export.cases import ODD, ROWS, TWO

NAN = float("nan")


def row(image_id, xy, confidence, size=(None, None)):
    found = {"probability": [0.9] * len(xy), "found": [True] * len(xy)}
    return {"image_id": image_id, "xy": xy, "confidence": confidence, **found, "width": size[0], "height": size[1]}


PARTS = [
    [
        row("a.jpg", [[10.0, 20.0], [30.5, 5.25]], [0.5, 0.25], (64, 48)),
        row('in "b", c/d.jpg#0', [[1.0, 2.0], [NAN, NAN]], [0.5, 0.0], (640, 480)),
    ],
    [row('in "b", c/d.jpg#1', [[NAN, NAN], [NAN, NAN]], [0.0, 0.0], (640, 480))],
    [],
]


def tables():
    return (pa.Table.from_pylist(rows, schemas.SOURCE_LANDMARKS) for rows in PARTS)


def thing(tables, landmarks) -> Predictions:
    return Predictions(tables, Layout.of("thing", [-1] * landmarks))


def test_coco_has_images_and_their_objects():
    found = json.loads("".join(to_coco(thing(tables, 2))), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert found["categories"] == [
        {"id": 1, "name": "thing", "supercategory": "object", "keypoints": ["landmark_0", "landmark_1"], "skeleton": []}
    ]
    assert found["images"] == [  # two objects of one picture, though in two parts
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": 'in "b", c/d.jpg', "width": 640, "height": 480},
    ]
    first, second, third = found["annotations"]
    assert first["keypoints"] == [10, 20, 2, 30.5, 5.25, 2]
    assert first["bbox"] == [10, 5.25, 20.5, 14.75]  # x, y, width, height
    assert first["area"] == pytest.approx(20.5 * 14.75, abs=1e-3)
    assert (first["score"], first["confidence"]) == (0.375, [0.5, 0.25])
    assert second["keypoints"] == [1, 2, 2, 0, 0, 0]
    assert [a["num_keypoints"] for a in found["annotations"]] == [2, 1, 0]
    assert [a["image_id"] for a in found["annotations"]] == [1, 2, 2]
    assert [a["id"] for a in found["annotations"]] == [1, 2, 3]
    assert (third["score"], third["bbox"]) == (0, [0, 0, 0, 0])


def coco_of(*rows) -> dict:
    text = "".join(to_coco(thing(lambda: [pa.Table.from_pylist(list(rows), schemas.SOURCE_LANDMARKS)], 3)))
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_points_outside_of_the_picture_are_not_labelled_and_boxes_lie_inside():
    """A detector may find points where the letterbox, or the crop of a box, shows what is beyond the border."""
    points = [[[-0.4, -0.5], [63.4, 47.5], [30.0, 20.0]], [[-0.6, 5.0], [64.0, 5.0], [5.0, 48.0]], [[NAN, 5.0]] * 3]
    found = coco_of(*[row(f"{i}.jpg", xy, [0.5, 0.7, NAN], (64, 48)) for i, xy in enumerate(points)])
    first, second, third = found["annotations"]
    assert first["keypoints"] == [0, 0, 2, 63.4, 47.5, 2, 30, 20, 2]
    assert first["bbox"] == [0, 0, 63.4, 47.5]
    assert (second["keypoints"], second["num_keypoints"], second["bbox"]) == ([0] * 9, 0, [0, 0, 0, 0])
    assert third["keypoints"] == [0] * 9
    for annotation in found["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x <= x + width <= 64
        assert 0 <= y <= y + height <= 48


def test_a_picture_of_unknown_size_is_as_large_as_its_points_need():
    """Datasets of earlier versions with boxes do not know it."""
    found = coco_of(
        row("a.jpg#0", [[10.2, 5.0], [90.6, NAN], [20.0, 77.5]], [0.5] * 3),
        row("a.jpg#1", [[99.4, 5.0], [NAN, NAN], [3.0, 3.0]], [0.5] * 3),
        row("b.jpg", [[NAN, NAN]] * 3, [0.0] * 3),
    )
    assert [(image["width"], image["height"]) for image in found["images"]] == [(100, 79), (1, 1)]
    assert found["annotations"][0]["keypoints"] == [10.2, 5, 2, 0, 0, 0, 20, 77.5, 2]


def read_back(found, tmp_path):
    coco.write(found, Folder.at(tmp_path))
    return COCO(str(tmp_path / "coco.json"))


def test_pycocotools_reads_every_landmark(found, tmp_path):
    read = read_back(found, tmp_path)
    files = {image["id"]: image for image in read.loadImgs(read.getImgIds())}
    assert [(one["file_name"], one["width"], one["height"]) for one in files.values()] == [
        ("plain.png", 64, 48), (ODD, 640, 480), (TWO, 100, 80), ("none.png", 64, 48),
    ]  # fmt: skip
    annotations = read.loadAnns(read.getAnnIds())
    assert [files[one["image_id"]]["file_name"] for one in annotations] == ["plain.png", ODD, TWO, TWO, "none.png"]
    expected = [
        [2, 1, 0],
        [2, 2, 0],
        [2, 2, 2],
        [2, 2, 0],
        [0, 0, 0],
    ]  # the last of the second object is beyond the border
    for one, (_, xy, confidence, probability, _), flags in zip(annotations, ROWS, expected, strict=True):
        points = np.reshape(one["keypoints"], (3, 3))
        assert points[:, 2].tolist() == flags
        present = points[:, 2] > 0
        at = np.maximum(np.array(xy), 0)[present]  # no tool takes a negative coordinate: half a pixel at the border
        np.testing.assert_allclose(points[present, :2], at, atol=0.01)
        assert not points[~present].any()
        assert one["num_keypoints"] == present.sum()
        np.testing.assert_allclose(one["probability"], probability, atol=1e-4)
        np.testing.assert_allclose(one["confidence"], confidence, atol=1e-4)
    results = [{key: one[key] for key in ("image_id", "category_id", "keypoints", "score")} for one in annotations]
    assert len(read.loadRes(results).getAnnIds()) == 5


def test_the_file_says_what_it_is_and_how_landmarks_belong_together(found, tmp_path):
    plain = read_back(found, tmp_path).dataset
    assert plain["info"] == {
        "description": "Landmarks of creature, predicted", "version": "0123456789abcdef0123", "contributor": "ray_kplm",
        "software_version": "1.2.3", "min_probability": 0.5, "year": 2026, "date_created": "2026-11-30T08:00:00+00:00",
    }  # fmt: skip
    (category,) = plain["categories"]
    assert (category["name"], category["keypoints"]) == ("creature", ["left, eye", "right eye", "n\xe4se"])
    assert sorted(category["skeleton"]) == [[1, 2], [2, 3]]
    first = (tmp_path / "coco.json").read_bytes()
    coco.write(found, Folder.at(tmp_path))
    assert (tmp_path / "coco.json").read_bytes() == first


def test_sleap_io_reads_the_same(found, tmp_path):
    read_back(found, tmp_path)
    for name in ("plain.png", ODD, TWO, "none.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    labels = sleap_io.load_coco(str(tmp_path / "coco.json"))
    assert labels.skeleton.node_names == list(found.layout.names)
    assert sorted(labels.skeleton.edge_inds) == [(0, 1), (1, 2)]
    read = [one.numpy() for frame in labels for one in frame.instances]
    assert any(np.allclose(one, ROWS[2][1], atol=0.01) for one in read)


def test_a_probability_that_is_not_known_is_null(frames, tmp_path):
    plain = read_back(frames, tmp_path).dataset
    assert [one["probability"] for one in plain["annotations"]] == [None] * 3
    assert [one["keypoints"][2::3] for one in plain["annotations"]] == [[2, 0, 2]] * 3
    assert [(image["video"], image["frame_id"]) for image in plain["images"]] == [
        ("day 1/clip.mp4", 3), ("day 1/clip.mp4", 7), ("other.avi", 0),
    ]  # fmt: skip
    assert "date_created" not in plain["info"]


def test_without_landmarks_the_file_is_still_valid(empty, tmp_path):
    assert read_back(empty, tmp_path).dataset["annotations"] == []
