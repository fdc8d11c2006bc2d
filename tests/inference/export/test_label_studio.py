"""Predicted landmarks as Label Studio's tasks, read back by sleap-io's reader and by the documented format."""

import json
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
from sleap_io import Skeleton
from sleap_io.io.labelstudio import task_to_labeled_frame

from ray_kplm.inference.export import label_studio
from ray_kplm.storage import Folder
from tests.inference.export.cases import NAN, ODD, ROWS, TWO


def tasks(found, tmp_path) -> list[dict]:
    assert label_studio.write(found, Folder.at(tmp_path)) == []
    return json.loads((tmp_path / "label_studio" / "tasks.json").read_text())


def read(task: dict, names) -> list[np.ndarray]:
    """Return the points (3, 2) of each object, in our pixels."""
    task["meta"] = {"video": {"filename": "x.png", "shape": (1, 1, 1, 1), "frame_idx": 0}}  # which sleap-io needs
    frame = task_to_labeled_frame(task, Skeleton(nodes=list(names)), key="predictions")
    return [one.numpy() - 0.5 for one in frame.instances]  # percent are of the picture from its border


def test_sleap_io_reads_every_landmark(found, tmp_path):
    plain, odd, two, none = tasks(found, tmp_path)
    names = found.layout.names
    np.testing.assert_allclose(read(plain, names), [[*ROWS[0][1][:2], [NAN, NAN]]], atol=0.01)
    np.testing.assert_allclose(read(odd, names), [ROWS[1][1]], atol=0.01)
    np.testing.assert_allclose(read(two, names), [ROWS[2][1], [*ROWS[3][1][:2], [NAN, NAN]]], atol=0.01)
    assert read(none, names) == []


def test_tasks_have_the_documented_form_and_the_labels_of_the_configuration(found, tmp_path):
    given = tasks(found, tmp_path)
    config = ElementTree.parse(tmp_path / "label_studio" / "config.xml").getroot()
    tags = {child.get("name"): child for child in config}
    allowed = {label.get("value") for label in tags["landmarks"]}
    assert allowed == {"left, eye", "right eye", "näse"}
    names = [unquote(task["data"]["image"].removeprefix("/data/local-files/?d=")) for task in given]
    assert names == ["plain.png", ODD, TWO, "none.png"]
    for task in given:
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "ray_kplm 1.2.3 0123456789abcdef"
        assert 0 <= prediction["score"] <= 1
        regions = [region for region in prediction["result"] if region["type"] != "relation"]
        ids = [region["id"] for region in regions]
        assert len(set(ids)) == len(ids)
        for region in regions:
            tag = tags[region["from_name"]]
            assert tag.tag.lower() == region["type"]
            assert tag.get("toName") == region["to_name"] == tags["image"].get("name")
            assert set(region["value"][region["type"]]) <= {label.get("value") for label in tag}
            assert 0 <= region["value"]["x"] <= 100
            assert region["original_width"] > 0
        relations = [region for region in prediction["result"] if region["type"] == "relation"]
        assert all({relation["from_id"], relation["to_id"]} <= set(ids) for relation in relations)
    scores = [region["score"] for region in given[0]["predictions"][0]["result"]]
    assert scores == [0.9, 0.3]


def test_without_pictures_there_are_no_tasks(empty, tmp_path):
    assert tasks(empty, tmp_path) == []
