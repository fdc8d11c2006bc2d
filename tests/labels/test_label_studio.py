"""Label Studio's export as labels."""

from __future__ import annotations

import numpy as np
import pytest

from ray_kplm.errors import DataError


def point(name, x, y, size=(64, 48), **more):
    """A region at a pixel (centres at integers)."""
    value = {"x": (x + 0.5) / size[0] * 100, "y": (y + 0.5) / size[1] * 100, "width": 1, "keypointlabels": [name]}
    region = {"type": "keypointlabels", "value": value, "original_width": size[0], "original_height": size[1]}
    return {**region, "id": f"{name}-{x}", "image_rotation": 0, **more}


def box(x, y, width, height, **more):
    """A region from border to border, shares of 64 x 48 pixels."""
    value = {"x": x / 64 * 100, "y": y / 48 * 100, "width": width / 64 * 100, "height": height / 48 * 100}
    region = {"type": "rectanglelabels", "value": {**value, "rectanglelabels": ["mouse"]}}
    return {**region, "original_width": 64, "original_height": 48, **more}


def task(*regions, image="/data/local-files/?d=photos/a%20b.png", **more):
    return {"id": 3, "data": {"image": image}, "annotations": [{"result": list(regions)}], **more}


def test_percent_from_the_border_become_pixels_with_centres_at_integers(read, picture):
    path = picture("photos/a b.png")
    labels = read([task(point("nose", 10.25, 20.5), point("tail", -0.5, 47.5), box(2, 3, 20, 30))])
    assert labels.names == ("nose", "tail")
    assert labels.images == (str(path),)
    np.testing.assert_allclose(labels.xy, [[[10.25, 20.5], [-0.5, 47.5]]], atol=1e-9)
    np.testing.assert_allclose(labels.boxes, [[1.5, 2.5, 21.5, 32.5]], atol=1e-9)
    assert labels.visible.all()


@pytest.mark.parametrize(
    "image",
    [
        "/data/local-files/?d=some/where/a.png",
        "/data/upload/4/0a1b2c3d-a.png",
        "http://host.example/files/a.png?token=7",
        "s3://bucket/photos/a.png",
        "a.png",
    ],
)
def test_images_are_found_by_all_ways_to_name_them(read, picture, image):
    path = picture("deep/er/a.png")
    assert read([task(point("nose", 1, 2), image=image)], images=path.parents[1]).images == (str(path),)


def test_the_last_annotation_that_was_not_cancelled_counts(read, picture):
    picture("a.png")
    given = task(image="a.png")
    given["annotations"] = [
        {"result": [point("nose", 3, 3)], "updated_at": "2026-03-01T10:00:00Z"},
        {"result": [point("nose", 1, 1)], "updated_at": "2026-01-01T10:00:00Z"},
        {"result": [point("nose", 9, 9)], "updated_at": "2026-04-01T10:00:00Z", "was_cancelled": True},
    ]
    np.testing.assert_allclose(read([given]).xy, [[[3, 3]]], atol=1e-9)
    for one in given["annotations"]:
        del one["updated_at"]
    np.testing.assert_allclose(read([given]).xy, [[[1, 1]]], atol=1e-9)


def test_tasks_that_nobody_annotated_are_counted(read, picture):
    picture("a.png")
    skipped = {"data": {"image": "a.png"}, "annotations": []}
    predicted = {**skipped, "predictions": [{"result": [point("nose", 5, 5)]}]}
    labels = read([task(point("nose", 1, 1), image="a.png"), skipped, predicted])
    assert len(labels) == 1
    assert labels.notes == (
        "1 of 3 tasks without an annotation: left out",
        "1 of 3 tasks with predictions alone: left out",
    )
    with pytest.raises(DataError, match=r"no task has an annotated keypoint \(1 of 1 tasks with predictions alone"):
        read([predicted])


def test_objects_are_told_apart_by_relations_parents_or_boxes(read, picture):
    picture("a.png")
    boxes = [box(0, 0, 30, 48, id="left"), box(30, 0, 34, 48, id="right")]
    relation = {"type": "relation", "from_id": "left", "to_id": "tail-40", "direction": "right"}
    points = [point("nose", 5, 5), point("nose", 50, 5), point("tail", 40, 9), point("tail", 6, 9, parentID="right")]
    labels = read([task(*boxes, *points, relation, image="a.png")])
    np.testing.assert_allclose(labels.xy, [[[5, 5], [40, 9]], [[50, 5], [6, 9]]], atol=1e-9)
    np.testing.assert_allclose(labels.boxes[:, 0], [-0.5, 29.5], atol=1e-9)


def test_two_points_of_one_name_without_boxes_are_refused_for_this_image(read, picture):
    picture("a.png"), picture("b.png")
    double = task(point("nose", 5, 5), point("nose", 9, 9), image="a.png")
    labels = read([double, task(point("nose", 5, 5), image="b.png")])
    assert len(labels) == 1
    assert labels.rejected[0][0] == "a.png"
    assert "several points named nose; draw a box" in labels.rejected[0][1]


def test_a_turned_picture_and_a_broken_task_are_named(read, picture):
    picture("a.png")
    turned = task(point("nose", 1, 1, image_rotation=90), image="a.png")
    labels = read([turned, 5, task(point("nose", 1, 1), image="a.png")])
    assert [name for name, _ in labels.rejected] == ["task 3", "task 2"]
    assert "turned in Label Studio" in labels.rejected[0][1]


def test_json_min_is_refused_with_the_way_out(read):
    with pytest.raises(DataError, match="and not as JSON-MIN"):
        read([{"image": "a.png", "label": [{"x": 1, "y": 2, "keypointlabels": ["nose"]}]}])
