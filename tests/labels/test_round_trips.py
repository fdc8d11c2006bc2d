"""What this package writes is read again as it was, to the rounding of each format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ray_kplm.inference.export import coco, deeplabcut, label_studio, landmarks_csv
from ray_kplm.labels.labels import Labels
from ray_kplm.labels.reading import read_labels
from ray_kplm.labels.writing import write_coco
from ray_kplm.storage import Folder
from tests.inference.export.cases import FLAGS, ROWS
from tests.inference.export.conftest import found  # noqa: F401

NAMES = ("left, eye", "right eye", "näse")


@pytest.fixture
def pictures(picture) -> Path:
    """The pictures of `ROWS`, in the folder that is returned."""
    for image_id, _, _, _, size in ROWS:
        root = picture(f"photos/{image_id.partition('#')[0]}", size)
    return Path(*root.parts[: root.parts.index("photos") + 1])


def expected(present, *, inside: bool) -> np.ndarray:
    """(N, 3, 2), the points of the rows with a point, as they were predicted; also the one 1.5 px beyond the border, or not."""
    xy = np.array([row[1] for row in ROWS], np.float64)
    xy[~np.asarray(present)] = np.nan
    xy[3, 2] = np.nan if inside else xy[3, 2]
    return xy[np.isfinite(xy).any(axis=(1, 2))]


def files(labels: Labels) -> list[str]:
    return [image.partition("/photos/")[2] for image in labels.images]


def test_coco(found, pictures, tmp_path):  # noqa: F811
    coco.write(found, Folder.at(tmp_path))
    labels = read_labels(tmp_path / "coco.json", pictures)
    flags = np.array(FLAGS)
    np.testing.assert_allclose(labels.xy, np.clip(expected(flags > 0, inside=True), 0, None), atol=1e-3)
    np.testing.assert_array_equal(labels.visible, (flags[:4] == 2) & np.isfinite(labels.xy[..., 0]))
    assert labels.names == NAMES
    assert labels.skeleton == found.layout.skeleton
    assert labels.rejected == ()
    assert files(labels) == [row[0].partition("#")[0] for row in ROWS[:4]]


def test_label_studio(found, pictures, tmp_path):  # noqa: F811
    label_studio.write(found, Folder.at(tmp_path))
    tasks = json.loads((tmp_path / "label_studio/tasks.json").read_text())
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    labels = read_labels(tmp_path / "export.json", pictures)
    order = [labels.names.index(name) for name in NAMES]
    np.testing.assert_allclose(labels.xy[:, order], expected(np.array(FLAGS) > 0, inside=True), atol=1e-3)
    assert files(labels) == [row[0].partition("#")[0] for row in ROWS[:4]]


def test_deeplabcut(found, pictures, tmp_path):  # noqa: F811
    deeplabcut.write(found, Folder.at(tmp_path))
    likely = [[p >= 0.5 for p in row[3]] for row in ROWS]
    want = expected(likely, inside=False)
    for kind in ("csv", "h5"):
        labels = read_labels(tmp_path / f"dlc/landmarks.{kind}", pictures)
        np.testing.assert_allclose(labels.xy, want, atol=1e-4)
        assert labels.names == NAMES
        assert files(labels) == [row[0].partition("#")[0] for row in ROWS[:4]]


def test_csv(found, pictures, tmp_path):  # noqa: F811
    landmarks_csv.write(found, Folder.at(tmp_path))
    labels = read_labels(tmp_path / "landmarks.csv", pictures)
    np.testing.assert_allclose(
        labels.xy, expected([[p >= 0.5 for p in row[3]] for row in ROWS], inside=False), atol=1e-3
    )
    assert labels.names == found.layout.names
    assert files(labels) == [row[0].partition("#")[0] for row in ROWS[:4]]


def test_labels_that_were_written_as_coco(picture, tmp_path):
    images = (str(picture("a.png")), str(picture("deep/b.png")), str(picture("a.png")))
    xy = np.array([[[1.25, 2.5], [-0.5, 47.5]], [[np.nan, np.nan], [9, 8]], [[3, 4], [5, 6]]])
    visible = np.array([[True, False], [False, True], [False, False]])
    boxes = np.array([[0, 1, 2, 3], [np.nan] * 4, [5, 6, 17, 28.5]])
    labels = Labels(("nose", "tail"), images, xy, visible, boxes, ((0, 1),))
    write_coco(labels, dict.fromkeys(images, (64, 48)), Folder.at(tmp_path), "mine.json", "mouse")
    names = [image["file_name"] for image in json.loads((tmp_path / "mine.json").read_text())["images"]]
    assert names == ["a.png", "deep/b.png"]
    again = read_labels(tmp_path / "mine.json")
    assert (again.names, again.images, again.skeleton) == (labels.names, images, ((0, 1),))
    np.testing.assert_allclose(again.xy, xy, atol=1e-3)
    np.testing.assert_array_equal(again.visible, visible)
    np.testing.assert_allclose(again.boxes[[0, 2]], boxes[[0, 2]], atol=1e-3)
