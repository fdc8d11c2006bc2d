"""Written videos, read back: frames, times, size and pixels; and landmarks drawn on frames."""

from fractions import Fraction

import av
import numpy as np
import pytest

from ray_kplm.imaging.draw import palette
from ray_kplm.storage import Folder
from ray_kplm.video.overlay import Overlay
from ray_kplm.video.reader import index_video, read_frames
from ray_kplm.video.writer import ENCODERS, choose_encoder, writing_video
from tests.clips import number_of, numbered

PTS = [1000, 1512, 2536, 3048, 3560, 9000]
UNIT = Fraction(1, 12800)


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [(96, 64), (97, 63)])
def test_frames_have_the_times_of_the_source(tmp_path, encoder, size):
    with writing_video(str(tmp_path / "out.mp4"), size, UNIT, Fraction(25), encoder=encoder) as writer:
        for number, pts in enumerate(PTS):
            writer.add(numbered(number, *size), pts)
    folder = Folder.at(tmp_path)
    index = index_video(folder, "out.mp4")
    np.testing.assert_allclose(index.seconds, (np.array(PTS) - PTS[0]) / 12800, atol=1e-4)
    frames = list(read_frames(folder, "out.mp4", index, range(len(PTS))))
    assert index.size == (96 if size[0] == 96 else 98, 64)
    for number, frame in enumerate(frames):
        assert number_of(frame.rgb[: size[1], : size[0]]) == number
        assert np.abs(frame.rgb[: size[1], : size[0]].astype(int) - numbered(number, *size)).mean() < 8


def test_h264_is_chosen_where_its_encoder_is_there(tmp_path, monkeypatch):
    assert choose_encoder() == "libx264"
    real = av.codec.Codec

    def without_x264(name: str, mode: str):
        if "264" in name:
            raise ValueError(name)
        return real(name, mode)

    monkeypatch.setattr(av.codec, "Codec", without_x264)
    assert choose_encoder() == "mpeg4"
    assert next(iter(ENCODERS)) == "libx264"


@pytest.mark.parametrize("side", [(320, 180), (1920, 1080)])
def test_a_found_landmark_is_a_disc_of_its_colour_with_its_name_beside_it(side):
    frame = np.full((side[1], side[0], 3), 200, np.uint8)
    xy = np.array([[0.25, 0.5], [0.75, 0.5]]) * side
    drawn = Overlay(2)(frame, {0: (xy, np.array([True, True]))})
    for point, colour in zip(np.rint(xy).astype(int), palette(2), strict=True):
        np.testing.assert_array_equal(drawn[point[1], point[0]], colour)
    assert (frame == 200).all()
    numbered_ = Overlay(2, labels=["0", "1"])(frame, {0: (xy, np.array([True, True]))})
    assert (numbered_ != drawn).any()
    named = Overlay(2, labels=["nose", "tail"])(frame, {0: (xy, np.array([True, True]))})
    assert (named != drawn).any(axis=2).sum() > (numbered_ != drawn).any(axis=2).sum()
    changed = (drawn != frame).any(axis=2).mean()
    assert 0 < changed < 0.01


def test_a_landmark_that_is_not_found_is_a_faint_ring_and_none_without_a_place():
    frame, xy = np.full((180, 320, 3), 200, np.uint8), np.array([[80.0, 90.0], [np.nan, np.nan], [1e9, 5.0]])
    drawn = Overlay(3)(frame, {0: (xy, np.array([False, False, True]))})
    np.testing.assert_array_equal(drawn[90, 80], 200)  # it is hollow
    changed = np.argwhere((drawn != 200).any(axis=2))
    assert len(changed)
    assert np.linalg.norm(changed - [90, 80], axis=1).max() < 12
    assert drawn.min() > 90  # and faint


def test_a_trail_leads_to_where_the_landmark_was_and_is_as_long_as_asked():
    def after(trail: int) -> np.ndarray:
        frame, overlay = np.full((180, 320, 3), 200, np.uint8), Overlay(1, trail=trail)
        for x in range(40, 200, 20):
            drawn = overlay(frame, {0: (np.array([[float(x), 90.0]]), np.array([True]))})
        return np.flatnonzero((drawn[90] != 200).any(axis=1))

    assert after(0).min() > 170  # the last landmark, at 180, alone
    assert 95 < after(4).min() < 105
    assert after(50).min() < 45


def test_a_trail_has_a_gap_where_the_landmark_was_not_found():
    frame, overlay = np.full((180, 320, 3), 200, np.uint8), Overlay(1)
    for x, is_found in ((40, True), (80, False), (120, True)):
        drawn = overlay(frame, {0: (np.array([[float(x), 90.0]]), np.array([is_found]))})
    assert (drawn[90, 50:110] == 200).all()


def test_edges_join_what_is_found():
    frame, xy = np.full((90, 160, 3), 128, np.uint8), np.array([[20.0, 20.0], [140.0, 20.0], [140.0, 70.0]])
    drawn = Overlay(3, edges=[(0, 1), (1, 2)])(frame, {0: (xy, np.array([True, True, False]))})
    plain = Overlay(3)(frame, {0: (xy, np.array([True, True, False]))})
    changed = (drawn != plain).any(axis=2)
    assert changed[20, 40:120].all()
    assert not changed[24:].any()
