"""The synthetic category: reproducible, with exact landmarks, mirror symmetric, not predicted by its mean."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.imaging.synthetic import category
from ray_kplm.imaging.synthetic.category import LANDMARK_NAMES, NORMALISER, SWAP_PAIRS, render, write_category
from ray_kplm.imaging.synthetic.creature import (
    View,
    chart_to_sphere,
    draw_creature,
    draw_view,
    rotation_y,
    sphere_to_chart,
)
from ray_kplm.imaging.synthetic.paint import DARK, WHITE, draw_coat, paint
from ray_kplm.imaging.synthetic.scene import photograph

COUNT = len(LANDMARK_NAMES)
NUMBER = {name: i for i, name in enumerate(LANDMARK_NAMES)}
# Frontal landmarks of a creature map to themselves or to their partner in the mirror.
PARTNER = np.arange(COUNT)
for left, right in SWAP_PAIRS:
    PARTNER[[left, right]] = right, left


@pytest.fixture(scope="module")
def samples() -> list[category.SyntheticImage]:
    return [render(11, i) for i in range(300)]


def frontal(creature, size: int = 192) -> View:
    centre = np.full(2, (size - 1) / 2)
    return View(creature.semi_axes, np.eye(3), creature.taper, 0.25 * size * np.eye(2), centre)


def symmetric(creature):
    """The same creature with equal antennae: everything else is symmetric by construction."""
    mirror = np.array([-1.0, 1.0, 1.0])
    tips = np.stack([creature.antenna_tips[1] * mirror, creature.antenna_tips[1]])
    bends = np.stack([creature.antenna_bends[1] * mirror, creature.antenna_bends[1]])
    return replace(creature, antenna_tips=tips, antenna_bends=bends)


def test_an_image_has_the_documented_shapes_and_types(samples) -> None:
    sample = samples[0]
    assert sample.image.shape == (96, 96, 3)
    assert sample.image.dtype == np.uint8
    assert sample.landmarks.shape == (COUNT, 2)
    assert sample.landmarks.dtype == sample.box.dtype == np.float32
    assert sample.visible.shape == (COUNT,)
    assert sample.visible.dtype == bool


def test_an_image_does_not_depend_on_those_rendered_before(samples) -> None:
    for index in (17, 3, 17):
        again = render(11, index)
        assert again.image.tobytes() == samples[index].image.tobytes()
        assert again.landmarks.tobytes() == samples[index].landmarks.tobytes()


def test_seed_and_index_both_matter(samples) -> None:
    assert (render(12, 0).image != samples[0].image).any()
    assert (samples[1].image != samples[0].image).any()


def test_larger_image_is_the_same_scene() -> None:
    small, large = render(4, 9, size=64), render(4, 9, size=128)
    # The object spans `size - 1` steps between the outer pixel centres.
    np.testing.assert_allclose(large.landmarks / 127, small.landmarks / 63, atol=1e-5)


def test_object_fills_its_share_inside_the_image(samples) -> None:
    boxes = np.stack([sample.box for sample in samples])
    landmarks = np.stack([sample.landmarks for sample in samples])
    np.testing.assert_array_equal(boxes[:, :2], landmarks.min(1))
    np.testing.assert_array_equal(boxes[:, 2:], landmarks.max(1))
    assert boxes.min() > 0
    assert boxes.max() < 95
    # The head reaches past the landmarks at times, so that their box may be smaller than the object.
    longest = (boxes[:, 2:] - boxes[:, :2]).max(1) / 95
    assert longest.min() > 0.5
    assert longest.max() <= 0.7501


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("eye_left", DARK),
        ("eye_right", DARK),
        ("chin", WHITE),
        ("antenna_left", WHITE),
        ("antenna_right", WHITE),
    ],
)
def test_visible_landmark_lies_on_its_structure(name: str, colour) -> None:
    """Painted at 4 times the scale, without camera noise, the landmark's pixel has its marking's colour."""
    hits = total = 0
    for index in range(60):
        rng = np.random.default_rng([5, index])
        creature, coat = draw_creature(rng), draw_coat(rng)
        view = draw_view(rng, creature, 384)
        canvas = np.full((384, 384, 3), 128, np.uint8)
        paint(rng, canvas, creature, coat, view)
        if not category.visible_landmarks(creature, view)[NUMBER[name]]:
            continue
        x, y = view.project(creature.landmarks())[NUMBER[name]].round().astype(int)
        total += 1
        # Shading only darkens the markings of the chart, by no more than 1.1 upwards.
        hits += np.abs(canvas[y, x] - np.array(colour)).max() < 25
    assert total > 40
    # What is left over is covered by an antenna or an ear in front.
    assert hits / total > 0.93


def test_centre_of_pupil_is_the_landmark() -> None:
    """The dark pupil's centre of mass agrees with the landmark to a fifth of a pixel of a 96 pixel image."""
    creature = symmetric(draw_creature(np.random.default_rng(2)))
    coat = replace(draw_coat(np.random.default_rng(2)), iris=(0.0, 200.0, 0.0))
    view = frontal(creature)
    canvas = np.zeros((192, 192, 3), np.uint8)
    paint(np.random.default_rng(2), canvas, creature, coat, view)
    for name in ("eye_left", "eye_right"):
        x, y = view.project(creature.landmarks())[NUMBER[name]]
        _, regions = cv2.connectedComponents((canvas.max(axis=2) < 40).astype(np.uint8))
        rows, columns = np.nonzero(regions == regions[round(y), round(x)])
        assert len(rows) < 0.05 * regions.size
        np.testing.assert_allclose([columns.mean(), rows.mean()], [x, y], atol=0.8)


def test_canvas_and_image_agree_on_pixel_centres() -> None:
    """A blob painted at a landmark's canvas position has its centre of mass there in the photograph."""
    rng = np.random.default_rng(3)
    creature = draw_creature(rng)
    view = draw_view(rng, creature, 96)
    points = creature.landmarks()
    x, y = category.on_canvas(view).project(points)[NUMBER["nose"]]
    rows, columns = np.indices((192, 192))
    blob = 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50)
    image = photograph(rng, np.repeat(blob[..., None], 3, axis=2).astype(np.uint8), 96).mean(axis=2)
    weight = np.where(image > 30, image, 0)
    rows, columns = np.indices((96, 96))
    found = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    np.testing.assert_allclose(found, view.project(points)[NUMBER["nose"]], atol=0.1)


def test_some_landmarks_are_hidden_and_finite(samples) -> None:
    landmarks = np.stack([sample.landmarks for sample in samples])
    visible = np.stack([sample.visible for sample in samples])
    assert np.isfinite(landmarks).all()
    assert 0.02 < 1 - visible.mean() < 0.2
    for name in ("cheek_left", "cheek_right", "ear_left", "ear_right"):
        assert not visible[:, NUMBER[name]].all()


def test_far_side_is_hidden_at_a_turn_and_shown_in_front() -> None:
    creature = draw_creature(np.random.default_rng(0))
    front = frontal(creature)
    assert category.visible_landmarks(creature, front).all()
    turned = replace(front, turn=rotation_y(np.deg2rad(75)))
    visible = category.visible_landmarks(creature, turned)
    # The nose now points to the image right: the creature's image-right half is away from the viewer.
    assert turned.project(creature.nose_tip()[None])[0, 0] > front.project(creature.nose_tip()[None])[0, 0]
    assert visible[NUMBER["cheek_left"]]
    assert visible[NUMBER["ear_left"]]
    assert not visible[NUMBER["cheek_right"]]
    assert not visible[NUMBER["ear_right"]]


def test_surface_seen_edge_on_counts_as_hidden() -> None:
    # Without a long nose, which would cover the cheek at these turns.
    creature = replace(draw_creature(np.random.default_rng(0)), nose_length=0.0, nose_radius=0.05)
    cheek = creature.landmarks()[NUMBER["cheek_right"]][None]
    seen = []
    for angle in np.deg2rad(np.arange(20, 90, 0.5)):
        view = replace(frontal(creature), turn=rotation_y(angle))
        if not view.behind_head(cheek)[0] and view.facing(cheek)[0] < 0.11:
            seen.append(category.visible_landmarks(creature, view)[NUMBER["cheek_right"]])
    assert len(seen) > 3
    assert not any(seen)


def test_nose_hides_what_it_covers() -> None:
    creature = draw_creature(np.random.default_rng(0))
    over_mouth = replace(creature, nose_y=creature.lower_lip[1])
    view = frontal(creature)
    shown, covered = (category.visible_landmarks(c, view) for c in (creature, over_mouth))
    assert [name for name in LANDMARK_NAMES if shown[NUMBER[name]] != covered[NUMBER[name]]] == ["lower_lip"]


def test_category_is_its_own_mirror_image() -> None:
    creature = symmetric(draw_creature(np.random.default_rng(8)))
    coat = replace(draw_coat(np.random.default_rng(8)), light=np.array([0.0, 0.0, 1.0]))
    view = frontal(creature)
    xy = view.project(creature.landmarks())
    mirrored = xy[PARTNER] * (-1, 1) + (191, 0)
    np.testing.assert_allclose(mirrored, xy, atol=1e-9)
    canvas = np.full((192, 192, 3), 128, np.uint8)
    paint(np.random.default_rng(8), canvas, creature, coat, view)
    difference = np.abs(canvas.astype(int) - canvas[:, ::-1])
    # Fixed-point rounding moves a few edges by a sixteenth of a pixel.
    assert np.mean(difference > 40) < 0.01
    assert canvas.std() > 20


def test_swap_pairs_name_left_and_right() -> None:
    for left, right in SWAP_PAIRS:
        assert LANDMARK_NAMES[left].replace("left", "right") == LANDMARK_NAMES[right] != LANDMARK_NAMES[left]
    assert sum("left" in name for name in LANDMARK_NAMES) == len(SWAP_PAIRS)


def test_the_mean_shape_is_a_poor_prediction(samples) -> None:
    landmarks = np.stack([sample.landmarks for sample in samples])
    boxes = np.stack([sample.box for sample in samples])
    assert NORMALISER["type"] == "bbox_sqrt"
    normaliser = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    error = np.linalg.norm(landmarks[150:] - landmarks[:150].mean(0), axis=2) / normaliser[150:, None]
    assert error.mean() > 0.15


def test_ray_cast_inverts_projection() -> None:
    rng = np.random.default_rng(1)
    creature = draw_creature(rng)
    view = draw_view(rng, creature, 96)
    sphere = rng.normal(size=(200, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    points = sphere * creature.semi_axes
    facing = view.facing(points) > 0.1
    hit, found = view.head_at(view.project(points[facing]).astype(np.float32))
    assert hit.all()
    np.testing.assert_allclose(found, sphere[facing], atol=1e-3)


def test_chart_round_trip() -> None:
    at = np.array([[0.0, 0.0], [1.2, -0.4], [-2.0, 2.0]])
    sphere = chart_to_sphere(at[:, 0], at[:, 1])
    np.testing.assert_allclose(np.linalg.norm(sphere, axis=1), 1)
    np.testing.assert_allclose(sphere_to_chart(sphere), at, atol=1e-12)


def test_written_category_reads_back(tmp_path) -> None:
    write_category(tmp_path / "data", 10, test_share=0.3, size=48, seed=6)
    # tmp_path/data/
    #     train.parquet   7 rows
    #     test.parquet    3 rows
    #     dataset.json
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == ["dataset.json", "test.parquet", "train.parquet"]
    description = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert description["landmark_names"] == list(LANDMARK_NAMES)
    assert [tuple(pair) for pair in description["swap_pairs"]] == list(SWAP_PAIRS)
    assert description["nme"] == NORMALISER
    tables = {split: pq.read_table(tmp_path / "data" / f"{split}.parquet") for split in ("train", "test")}
    assert {split: len(table) for split, table in tables.items()} == {"train": 7, "test": 3}
    # Column order and types of the other data sets, e.g. face_ytf68.
    columns = "image_id image width height bbox landmarks visible group"
    assert tables["test"].column_names == description["columns"] == columns.split()
    rows = tables["train"].to_pylist() + tables["test"].to_pylist()
    assert len({row["image_id"] for row in rows}) == 10
    for index, row in enumerate(rows):
        sample = render(6, index, 48)
        np.testing.assert_array_equal(np.float32(row["landmarks"]), sample.landmarks)
        np.testing.assert_array_equal(np.float32(row["bbox"]), sample.box)
        np.testing.assert_array_equal(row["visible"], sample.visible)
        decoded = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        # JPEG loses some noise; swapped channels or another image differ by 30 and more.
        assert np.abs(decoded - sample.image).mean() < 10


def test_rows_are_written_in_groups(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(category, "ROWS_PER_GROUP", 3)
    write_category(tmp_path, 10, size=32)
    file = pq.ParquetFile(tmp_path / "train.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 3, 2]


def test_failed_writing_leaves_the_old_data(tmp_path, monkeypatch) -> None:
    write_category(tmp_path, 4, size=32)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail_late(seed: int, index: int, size: int, **options) -> category.SyntheticImage:
        if index == 4:
            raise OSError("disk full")
        return render(seed, index, size, **options)

    monkeypatch.setattr(category, "render", fail_late)
    with pytest.raises(OSError, match="disk full"):
        write_category(tmp_path, 6, size=32, seed=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_interrupted_publishing_leaves_no_description(tmp_path, monkeypatch) -> None:
    """New training rows beside old test rows must not pass for a data set."""
    write_category(tmp_path, 4, size=32)
    replace_file = category.os.replace

    def fail_on_test(source, target) -> None:
        if target.name == "test.parquet":
            raise OSError("killed")
        replace_file(source, target)

    monkeypatch.setattr(category.os, "replace", fail_on_test)
    with pytest.raises(OSError, match="killed"):
        write_category(tmp_path, 6, size=32, seed=1)
    assert not (tmp_path / "dataset.json").exists()


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: write_category(folder, 1),
        lambda folder: write_category(folder, 10, test_share=0.0),
        lambda folder: write_category(folder, 10, test_share=1.0),
        lambda folder: render(0, 0, size=8),
        lambda folder: render(-1, 0),
    ],
)
def test_errors_of_unusable_arguments_name_them(call, tmp_path) -> None:
    with pytest.raises(ConfigError, match=";"):
        call(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_mark_is_the_same_in_every_image(tmp_path):
    write_category(tmp_path, 6, mark=True)
    table = pq.read_table(tmp_path / "train.parquet")
    assert table["bbox"].null_count == len(table)
    pictures = [cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image in table["image"].to_pylist()]
    corners = np.stack([picture[5:13, 5:13] for picture in pictures]).astype(int)
    assert np.abs(corners - corners[0]).max() < 30
    assert corners[0].max() - corners[0].min() > 150
    elsewhere = np.stack([picture[40:48, 40:48] for picture in pictures]).astype(int)
    assert np.abs(elsewhere - elsewhere[0]).max() > 60
