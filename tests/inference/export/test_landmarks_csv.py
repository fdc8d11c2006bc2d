"""Predicted landmarks as CSV, read back by pandas and the csv module."""

import csv

import numpy as np
import pandas as pd

from ray_kplm.inference.export import landmarks_csv
from ray_kplm.storage import Folder
from tests.inference.export.cases import ODD, ROWS


def test_pandas_reads_every_detected_landmark(found, tmp_path):
    landmarks_csv.write(found, Folder.at(tmp_path))
    read = pd.read_csv(tmp_path / "landmarks.csv")
    expected = [
        (image_id, landmark, *xy[landmark], confidence[landmark], probability[landmark], probability[landmark] >= 0.5)
        for image_id, xy, confidence, probability, _ in ROWS
        for landmark in range(3)
        if np.isfinite(xy[landmark]).all()
    ]
    assert read["image_id"].tolist() == [row[0] for row in expected]
    assert ODD in set(read["image_id"])
    assert read["landmark"].tolist() == [row[1] for row in expected]
    np.testing.assert_allclose(read[["x", "y"]], [row[2:4] for row in expected], atol=0.01)
    np.testing.assert_allclose(read[["confidence", "probability"]], [row[4:6] for row in expected], atol=1e-4)
    assert read["found"].dtype == bool
    assert read["found"].tolist() == [row[6] for row in expected]
    assert read["name"].tolist() == [("left, eye", "right eye", "n\xe4se")[row[1]] for row in expected]


def test_a_probability_that_is_not_known_is_an_empty_cell(frames, tmp_path):
    landmarks_csv.write(frames, Folder.at(tmp_path))
    with (tmp_path / "landmarks.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["landmark"], line["probability"], line["found"]) for line in lines] == [
        ("0", "", "true"),
        ("2", "", "true"),
    ] * 3


def test_without_landmarks_there_is_the_first_line(empty, tmp_path):
    landmarks_csv.write(empty, Folder.at(tmp_path))
    assert (tmp_path / "landmarks.csv").read_text() == "image_id,landmark,x,y,confidence,probability,found\n"
