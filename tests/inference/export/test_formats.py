"""ClusteringResult landmarks as CSV and COCO: what other tools read."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.inference.export.formats import to_coco, to_csv

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


def test_csv_has_a_line_for_each_detected_landmark():
    lines = list(csv.DictReader(io.StringIO("".join(to_csv(tables)))))
    assert [(line["image_id"], line["landmark"], line["x"], line["y"], line["confidence"]) for line in lines] == [
        ("a.jpg", "0", "10.000", "20.000", "0.5000"),
        ("a.jpg", "1", "30.500", "5.250", "0.2500"),
        ('in "b", c/d.jpg#0', "0", "1.000", "2.000", "0.5000"),
    ]


def test_coco_has_images_and_their_objects():
    found = json.loads("".join(to_coco(tables, 2, "thing")), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert found["categories"] == [
        {"id": 1, "name": "thing", "keypoints": ["landmark_0", "landmark_1"], "skeleton": []}
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
    text = "".join(to_coco(lambda: [pa.Table.from_pylist(list(rows), schemas.SOURCE_LANDMARKS)], 3, "thing"))
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


def test_the_reference_implementation_reads_the_file(tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="no pycocotools: pip install -e '.[dev]'")
    (tmp_path / "coco.json").write_text("".join(to_coco(tables, 2, "thing")))
    found = coco.COCO(str(tmp_path / "coco.json"))
    assert [len(found.getAnnIds(imgIds=[image])) for image in found.getImgIds()] == [1, 2]
    results = [
        {key: one[key] for key in ("image_id", "category_id", "keypoints", "score")} for one in found.loadAnns([1, 2])
    ]
    assert len(found.loadRes(results).getAnnIds()) == 2


def test_without_landmarks_the_files_are_still_valid():
    assert json.loads("".join(to_coco(list, 3, "thing")))["annotations"] == []
    assert "".join(to_csv(list)) == "image_id,landmark,x,y,confidence\n"
