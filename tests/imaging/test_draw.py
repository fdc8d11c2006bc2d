"""Drawing: colours are at the landmarks' pixels, with pixel centres at integers."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest

from ray_kplm.errors import DataError
from ray_kplm.imaging.draw import (
    KEYPOINT,
    Marks,
    contact_sheet,
    draw_landmarks,
    draw_text,
    encode_png,
    in_ascii,
    palette,
    save_png,
)


def grey(height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def centroid_of(picture: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(x, y) mean of the pixels of exactly this colour."""
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("k", [1, 14, 36, 100])
def test_palette_colours_are_bright_and_distinct(k: int) -> None:
    colours = palette(k)
    assert colours.shape == (k, 3)
    assert colours.dtype == np.uint8
    assert colours.max(axis=1).min() >= 190
    assert len(np.unique(colours, axis=0)) == k


def test_a_palette_of_fourteen_has_large_lab_distances() -> None:
    lab = cv2.cvtColor(np.float32(palette(14)[None]) / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1e3 * np.eye(14)
    # Evenly spaced hues alone leave neighbours among the greens closer than 30.
    assert apart.min() > 30


def test_a_longer_palette_begins_with_the_shorter() -> None:
    np.testing.assert_array_equal(palette(30)[:5], palette(5))


@pytest.mark.parametrize("scale", [1, 2, 3, 5])
def test_the_centre_of_a_disc_is_kept_under_scaling(scale: int) -> None:
    xy = np.array([[10, 12], [40, 30]], np.float32)
    picture = draw_landmarks(grey(), xy, scale=scale)
    assert picture.shape == (40 * scale, 60 * scale, 3)
    for point, colour in zip(xy, palette(2), strict=True):
        # Borders map to borders: x -> scale * (x + 0.5) - 0.5.
        expected = (point + 0.5) * scale - 0.5
        np.testing.assert_allclose(centroid_of(picture, colour), expected, atol=0.1)


def test_enlarged_picture_and_points_share_a_frame() -> None:
    image = np.zeros((21, 21, 3), np.uint8)
    image[8, 14] = 255
    plain = draw_landmarks(image, np.full((1, 2), np.nan, np.float32), scale=4).astype(float).sum(axis=2)
    rows, columns = np.indices(plain.shape)
    bright = np.array([(columns * plain).sum(), (rows * plain).sum()]) / plain.sum()
    marked = draw_landmarks(np.zeros_like(image), np.array([[14, 8]], np.float32), scale=4)
    # cv2 rounds the edge of a small disc; half a pixel of the small image would be 2 here.
    np.testing.assert_allclose(centroid_of(marked, palette(1)[0]), bright, atol=0.6)


def test_the_input_image_is_not_changed() -> None:
    image = grey()
    draw_landmarks(image, np.array([[10, 10]], np.float32))
    np.testing.assert_array_equal(image, grey())


def test_nan_points_are_left_out_and_others_keep_their_colour() -> None:
    xy = np.array([[np.nan, np.nan], [30, 20]], np.float32)
    picture = draw_landmarks(grey(), xy)
    np.testing.assert_array_equal(picture[20, 30], palette(2)[1])
    assert not (picture == palette(2)[0]).all(axis=2).any()


def test_low_confidence_is_a_ring() -> None:
    xy = np.array([[15, 20], [45, 20]], np.float32)
    picture = draw_landmarks(grey(), xy, confidence=np.array([0.1, 0.9], np.float32), scale=8)
    first, second = ((xy + 0.5) * 8 - 0.5).round().astype(int)
    np.testing.assert_array_equal(picture[first[1], first[0]], [128, 128, 128])
    np.testing.assert_array_equal(picture[second[1], second[0]], palette(2)[1])
    assert (picture == palette(2)[0]).all(axis=2).any()


def test_numbers_add_ink_beside_the_disc_only() -> None:
    xy = np.array([[30, 20]], np.float32)
    without = draw_landmarks(grey(), xy, scale=4)
    with_number = draw_landmarks(grey(), xy, scale=4, numbers=True)
    rows, columns = np.nonzero((without != with_number).any(axis=2))
    assert len(rows) > 20
    assert columns.min() > 30 * 4
    assert rows.max() < 21 * 4


def test_contact_sheet_places_every_tile() -> None:
    images = [grey(40, 60), grey(80, 20), grey(200, 200)]
    points = [np.array([[30, 20], [10, 10]]), np.array([[5, 40], [15, 70]]), np.array([[100, 50], [20, 180]])]
    sheet = contact_sheet(images, [p.astype(np.float32) for p in points], columns=2, tile=100)
    assert sheet.shape[1] == 200
    assert sheet.shape[0] > 200
    for i, (image, xy) in enumerate(zip(images, points, strict=True)):
        top, left = i // 2 * 100, i % 2 * 100
        height, width = image.shape[:2]
        scale = 100 / max(height, width)
        margin = (100 - scale * np.array([width, height])) // 2
        tile = sheet[top : top + 100, left : left + 100]
        for point, colour in zip(xy, palette(2), strict=True):
            expected = (point + 0.5) * scale - 0.5 + margin
            np.testing.assert_allclose(centroid_of(tile, colour), expected, atol=0.6)


def test_contact_sheet_legend_shows_every_colour_and_title_adds_a_strip() -> None:
    images, points = [grey()], [np.full((30, 2), np.nan, np.float32)]
    plain = contact_sheet(images, points, tile=160)
    legend = plain[160:]
    for colour in palette(30):
        assert (legend == colour).all(axis=2).any()
    titled = contact_sheet(images, points, tile=160, title="a title too long for a sheet of one tile only")
    extra = len(titled) - len(plain)
    assert (titled[:extra] < 100).any()
    np.testing.assert_array_equal(titled[extra:], plain)


def test_png_round_trip(tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    save_png(tmp_path / "a.png", image)
    buffer = io.BytesIO()
    save_png(buffer, image)
    assert buffer.getvalue() == encode_png(image) == (tmp_path / "a.png").read_bytes()
    decoded = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], image)


@pytest.mark.parametrize(
    "call",
    [
        lambda: palette(0),
        lambda: draw_landmarks(grey(), np.zeros((2, 2)), scale=0),
        lambda: draw_landmarks(grey(), np.zeros((2, 3))),
        lambda: draw_landmarks(grey(), np.zeros((2, 2)), confidence=np.zeros(3)),
        lambda: contact_sheet([], []),
        lambda: contact_sheet([grey()], [np.zeros((1, 2)), np.zeros((1, 2))]),
    ],
)
def test_errors_of_unusable_arguments_name_them(call) -> None:
    with pytest.raises(DataError, match=";"):
        call()


def test_contact_sheet_shows_generic_keypoints_above_the_landmarks_of_the_same_image() -> None:
    images = [grey(100, 100), grey(100, 100)]
    landmarks = [np.array([[30, 20], [70, 80]], np.float32), np.array([[40, 50], [60, 10]], np.float32)]
    generic = [np.array([[80, 20]], np.float32), np.array([[20, 90]], np.float32)]
    sheet = contact_sheet(images, landmarks, keypoints=generic, columns=1, tile=100)
    for i in range(2):
        above, below = (sheet[top : top + 100] for top in (200 * i, 200 * i + 100))
        np.testing.assert_allclose(centroid_of(above, np.array(KEYPOINT)), generic[i][0], atol=0.6)
        np.testing.assert_array_equal(below, contact_sheet([images[i]], [landmarks[i]], tile=100)[:100])


def test_edges_join_discs_and_labels_stand_in_the_legend():
    image, xy = grey(), np.array([[4.0, 4.0], [26.0, 4.0], [26.0, 20.0]])
    marks = Marks(["nose", "a long name", "ear"], palette(3), [(0, 1), (1, 2)])
    confidence = np.array([1.0, 1.0, 0.0])
    plain = draw_landmarks(image, xy, confidence=confidence, scale=8)
    joined = draw_landmarks(image, xy, confidence=confidence, scale=8, marks=marks)
    changed = (plain != joined).any(axis=2)
    assert changed[35, 60:180].all()
    assert not changed[60:].any()  # no line to the ring
    sheets = [contact_sheet([image], [xy], tile=400, marks=m) for m in (marks, Marks.numbered(3))]
    assert (sheets[0][400:] != sheets[1][400:]).any()


def test_text_keeps_inside_the_canvas_and_its_signs_are_ascii():
    canvas = np.zeros((30, 120, 3), np.uint8)
    draw_text(canvas, "wide name", np.array([110, 20]), 9)
    assert canvas[:, :100].any()
    assert in_ascii("N\xe4se \xe9 \u9f3b") == "Nase e ?"
