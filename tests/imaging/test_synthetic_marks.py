"""Background marks of the synthetic categories: where they are said to be, behind the object, the same in every image."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.imaging.synthetic.category import render, write_category
from ray_kplm.imaging.synthetic.kinds import KINDS
from ray_kplm.imaging.synthetic.marks import MARK_RADIUS, PLACES, draw_background_marks, mark_centres

SIZE = 96


def within(centres: np.ndarray, radius: float) -> np.ndarray:
    """Whether each pixel (SIZE, SIZE) lies within `radius` of a centre."""
    lines, columns = np.indices((SIZE, SIZE))
    distance = np.hypot(columns[..., None] - centres[:, 0], lines[..., None] - centres[:, 1])
    return distance.min(-1) <= radius


@pytest.mark.parametrize("kind", KINDS)
def test_marks_change_the_image_at_their_places_alone(kind: str) -> None:
    centres = mark_centres(10, SIZE)
    inside, near = within(centres, 0.8 * MARK_RADIUS * SIZE), within(centres, MARK_RADIUS * SIZE + 4)
    changed = np.zeros((SIZE, SIZE))
    for index in range(20):
        plain, marked = (render(3, index, kind=kind, background_marks=marks) for marks in (0, 10))
        np.testing.assert_array_equal(plain.landmarks, marked.landmarks)
        np.testing.assert_array_equal(plain.image[~near], marked.image[~near])
        changed += np.abs(plain.image.astype(int) - marked.image).max(-1) > 25
    # The object hides a mark now and then.
    assert 0.7 < (changed[inside] / 20).mean() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_object_is_in_front_of_the_marks(kind: str) -> None:
    """Where an image has a landmark on a mark's place, it shows the object there, as without marks."""
    covered = 0
    for index in range(150):
        plain = render(3, index, kind=kind)
        on_mark = within(mark_centres(10, SIZE), 0.5 * MARK_RADIUS * SIZE)
        x, y = np.rint(plain.landmarks[plain.visible]).astype(int).T
        hits = on_mark[y, x]
        if hits.any():
            marked = render(3, index, kind=kind, background_marks=10)
            same = np.abs(plain.image[y[hits], x[hits]].astype(int) - marked.image[y[hits], x[hits]]).max(-1) < 40
            covered += same.sum()
    assert covered >= 3


def test_a_mark_is_centred_where_the_description_says() -> None:
    canvas = np.full((SIZE, SIZE, 3), 128, np.uint8)
    centres = mark_centres(10, SIZE)
    draw_background_marks(canvas, centres)
    count, regions = cv2.connectedComponents((np.abs(canvas.astype(int) - 128).max(-1) > 10).astype(np.uint8))
    assert count == 11
    for x, y in centres:
        lines, columns = np.nonzero(regions == regions[round(y), round(x)])
        np.testing.assert_allclose([columns.mean(), lines.mean()], [x, y], atol=0.5)
        assert np.ptp(columns) == pytest.approx(2 * MARK_RADIUS * SIZE, abs=1.5)


def test_marks_are_rich_in_keypoints_and_differ() -> None:
    canvas, centres = np.full((SIZE, SIZE, 3), 128, np.uint8), mark_centres(10, SIZE)
    draw_background_marks(canvas, centres)
    counts = np.zeros(10)
    for index in range(20):
        image = render(3, index, kind="profile", background_marks=10).image
        points = cv2.SIFT_create(contrastThreshold=0.01).detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        distance = np.linalg.norm(np.array([point.pt for point in points])[:, None] - centres, axis=2)
        counts += (distance < MARK_RADIUS * SIZE).sum(0) / 20
    assert counts.min() > 2
    patches = [canvas[round(y) - 5 : round(y) + 6, round(x) - 5 : round(x) + 6].astype(int) for x, y in centres]
    for i, first in enumerate(patches):
        for second in patches[:i]:
            assert np.abs(first - second).mean() > 20


def test_fewer_marks_are_the_first_of_all_marks() -> None:
    np.testing.assert_array_equal(mark_centres(3, SIZE), mark_centres(10, SIZE)[:3])
    assert mark_centres(0, SIZE).shape == (0, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_has_kind_landmarks_and_marks(kind: str, tmp_path) -> None:
    write_category(tmp_path, 4, kind=kind, background_marks=3, boxes=False)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["name"] == f"synthetic_{kind}_96"
    np.testing.assert_allclose(description["background_marks"]["centres"], mark_centres(3, SIZE), atol=1e-3)
    assert description["background_marks"]["radius"] == pytest.approx(MARK_RADIUS * SIZE)
    table = pq.read_table(tmp_path / "train.parquet")
    assert table["bbox"].null_count == len(table)
    assert len(table["landmarks"][0]) == len(description["landmark_names"]) == description["n_landmarks"]
    assert all(name.startswith(kind) for name in table["image_id"].to_pylist())


def test_a_dataset_without_marks_says_nothing_of_them(tmp_path) -> None:
    write_category(tmp_path, 4)
    assert "background_marks" not in json.loads((tmp_path / "dataset.json").read_text())
    assert pq.read_table(tmp_path / "train.parquet")["bbox"].null_count == 0


@pytest.mark.parametrize("marks", [-1, len(PLACES) + 1])
def test_a_number_of_marks_without_places_is_an_error(marks: int, tmp_path) -> None:
    with pytest.raises(ConfigError, match=f"background_marks {marks}: .*pass 0 to 10"):
        write_category(tmp_path / "never", 10, background_marks=marks)
    assert not (tmp_path / "never").exists()
