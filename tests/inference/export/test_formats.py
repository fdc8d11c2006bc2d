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
    return {"image_id": image_id, "xy": xy, "confidence": confidence, "width": size[0], "height": size[1]}


PARTS = [
    [
        row("a.jpg", [[10.0, 20.0], [30.5, 5.25]], [0.5, 0.25], (64, 48)),
        row('in "b", c/d.jpg#0', [[1.0, 2.0], [NAN, NAN]], [0.5, 0.0]),
    ],
    [row('in "b", c/d.jpg#1', [[NAN, NAN], [NAN, NAN]], [0.0, 0.0])],
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
        {"id": 2, "file_name": 'in "b", c/d.jpg'},
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


def test_without_landmarks_the_files_are_still_valid():
    assert json.loads("".join(to_coco(list, 3, "thing")))["annotations"] == []
    assert "".join(to_csv(list)) == "image_id,landmark,x,y,confidence\n"
