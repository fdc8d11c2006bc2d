"""Predicted landmarks as a YOLO pose data set, read back by sleap-io's reader of Ultralytics' format."""

import numpy as np
import yaml
from sleap_io import Skeleton
from sleap_io.io.ultralytics import parse_label_file

from ray_kplm.inference.export import yolo
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.points.layout import Layout
from ray_kplm.storage import Folder
from tests.inference.export.cases import NAN, ODD, ROWS, TWO, table


def read(tmp_path, name, size, nodes) -> list[np.ndarray]:
    """Return the points (3, 2) of each object of a picture, in our pixels."""
    instances, rois, boxes = parse_label_file(tmp_path / "yolo" / "labels" / name, Skeleton(nodes=nodes), size[::-1])
    assert not rois
    assert not boxes
    return [one.numpy() - 0.5 for one in instances]  # YOLO's coordinates begin at the border of the picture


def test_sleap_io_reads_every_landmark(found, tmp_path, tree):
    assert yolo.write(found, Folder.at(tmp_path)) == []
    labels = [f"yolo/labels/{name.rpartition('.')[0]}.txt" for name in ("plain.png", ODD, TWO, "none.png")]
    assert tree() == sorted([*labels, "yolo/data.yaml"])
    nodes = list(found.layout.names)
    (plain,) = read(tmp_path, "plain.txt", (64, 48), nodes)
    np.testing.assert_allclose(plain, [*ROWS[0][1][:2], [NAN, NAN]], atol=0.01)
    (odd,) = read(tmp_path, ODD.replace(".jpg", ".txt"), (640, 480), nodes)
    np.testing.assert_allclose(odd, ROWS[1][1], atol=0.01)
    first, second = read(tmp_path, TWO.replace(".png", ".txt"), (100, 80), nodes)
    np.testing.assert_allclose(first, ROWS[2][1], atol=0.01)
    np.testing.assert_allclose(second, [*ROWS[3][1][:2], [NAN, NAN]], atol=0.01)
    assert (tmp_path / "yolo" / "labels" / "none.txt").read_text() == ""


def test_a_line_is_class_box_and_x_y_v_within_the_picture(found, tmp_path):
    yolo.write(found, Folder.at(tmp_path))
    for name, (_, xy, _, _, (width, height)), flags in (
        ("plain.txt", ROWS[0], [2, 1, 0]),
        (ODD.replace(".jpg", ".txt"), ROWS[1], [2, 2, 0]),
    ):
        (line,) = (tmp_path / "yolo" / "labels" / name).read_text().splitlines()
        words = line.split()
        assert len(words) == 5 + 3 * 3
        values = np.array(words, float)
        assert ((values[:5] >= 0) & (values[:5] <= 1)).all()
        points = values[5:].reshape(3, 3)
        assert ((points[:, :2] >= 0) & (points[:, :2] <= 1)).all()
        assert points[:, 2].tolist() == flags
        present = np.array(xy)[np.array(flags) > 0] + 0.5
        low, high = present.min(axis=0) / (width, height), present.max(axis=0) / (width, height)
        np.testing.assert_allclose(values[1:5], [*(low + high) / 2, *(high - low)], atol=1e-6)


def test_data_yaml_has_the_mirror_partners_names_and_skeleton(found, tmp_path):
    yolo.write(found, Folder.at(tmp_path))
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert data["kpt_shape"] == [3, 3]
    assert data["flip_idx"] == [1, 0, 2]
    assert data["names"] == {0: "creature"}
    assert data["kpt_names"] == {0: ["left, eye", "right eye", "näse"]}
    assert sorted(data["skeleton"]) == [[0, 1], [1, 2]]
    assert (data["train"], data["val"]) == ("images", "images")


def test_pictures_that_differ_by_the_extension_alone_are_counted(tmp_path):
    size = (64, 48)
    rows = [(name, [[x, 2.0]], [0.5], [0.9], size) for x, name in enumerate(["a.png", "b.png", "a.jpg"], start=5)]
    found = Predictions(lambda: [table(rows)], Layout.of("creature", [-1]))
    (note,) = yolo.write(found, Folder.at(tmp_path))
    assert note.startswith("yolo: 1 pictures left out (a.jpg); ")
    (xy,) = read(tmp_path, "a.txt", size, ["landmark_0"])
    np.testing.assert_allclose(xy, [[5, 2]], atol=0.01)


def test_frames_of_videos_are_named_by_video_and_number(frames, empty, tmp_path, tree):
    yolo.write(frames, Folder.at(tmp_path))
    assert tree() == [
        "yolo/data.yaml",
        *(f"yolo/labels/{name}.txt" for name in ("day 1/clip_3", "day 1/clip_7", "other_0")),
    ]
    yolo.write(empty, Folder.at(tmp_path / "empty"))
    assert (tmp_path / "empty" / "yolo" / "data.yaml").is_file()
