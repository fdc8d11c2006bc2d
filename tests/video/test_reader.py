"""Frames of videos: the right ones from any range, in containers and codecs as they come, upright, and damaged files."""

import shutil
from fractions import Fraction

import numpy as np
import pytest
from pyarrow import fs as pafs

from ray_kplm.errors import DataError
from ray_kplm.storage import Folder
from ray_kplm.video.reader import VideoIndex, index_video, read_frames
from tests.clips import number_of, numbered, write_clip

RANGES = [range(40), range(1), range(11, 13), range(13, 30), range(23, 24), range(39, 40), range(3, 40, 9)]


def read(path, numbers) -> list[tuple[int, int | None]]:
    """Read frames; return their numbers, and the numbers that are seen in their pictures."""
    folder = Folder.at(path.parent)
    frames = read_frames(folder, path.name, index_video(folder, path.name), numbers)
    return [(frame.number, None if frame.rgb is None else number_of(frame.rgb)) for frame in frames]


def index(path) -> VideoIndex:
    return index_video(Folder.at(path.parent), path.name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b_frames.mp4", {}),
        ("sound.mp4", {"audio": True}),
        ("matroska.mkv", {}),
        ("vp9.webm", {"encoder": "libvpx-vp9"}),
        ("stream.ts", {}),
        ("mpeg4.avi", {"encoder": "mpeg4", "time_base": Fraction(1, 25)}),
        ("h264.avi", {"time_base": Fraction(1, 25)}),
        ("program.mpg", {"encoder": "mpeg2video", "time_base": Fraction(1, 25)}),
        ("raw.h264", {}),
    ],
)
def test_every_range_has_its_own_frames(tmp_path, name, options):
    path = write_clip(tmp_path / name, **options)
    assert len(index(path)) == 40
    for numbers in RANGES:
        assert read(path, numbers) == [(number, number) for number in numbers], numbers


def test_times_are_those_of_a_variable_frame_rate(tmp_path):
    pts = np.cumsum([0, *([7, 40, 19] * 13)]).tolist()
    path = write_clip(tmp_path / "phone.mp4", frames=40, pts=pts)
    np.testing.assert_allclose(index(path).seconds, np.array(pts) / 600, atol=1e-6)
    assert read(path, range(17, 29)) == [(number, number) for number in range(17, 29)]
    assert float(index(path).rate) == pytest.approx(39 / (pts[-1] / 600))


@pytest.mark.parametrize(("turn", "corner"), [(90, (0, -1)), (180, (-1, -1)), (-90, (-1, 0))])
def test_frames_are_upright(tmp_path, turn, corner):
    path = write_clip(tmp_path / "phone.mov", frames=3, rotation=turn)
    folder = Folder.at(tmp_path)
    (frame,) = read_frames(folder, path.name, index(path), [1])
    expected = np.rot90(numbered(1), turn // 90)
    assert frame.rgb.shape == expected.shape
    assert abs(frame.rgb.astype(int) - expected).mean() < 6
    assert index(path).size == (96, 64)


def test_a_player_that_turns_by_the_metadata_shows_the_same(tmp_path):
    """The rotation of 90 is counter-clockwise, as FFmpeg's: what was on the right of the stored frame is above."""
    path = write_clip(tmp_path / "phone.mov", frames=1, rotation=90)
    (frame,) = read_frames(Folder.at(tmp_path), path.name, index(path), [0])
    grey_below = np.abs(frame.rgb[:, -20:].astype(int) - 96).mean()  # the lower half of the stored frame is grey
    assert grey_below < 40


def test_frames_of_an_object_store_are_the_same(tmp_path):
    write_clip(tmp_path / "clip.mp4")
    remote = Folder(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "")
    assert not remote.is_local
    found = index_video(remote, "clip.mp4")
    assert [number_of(frame.rgb) for frame in read_frames(remote, "clip.mp4", found, range(20, 26))] == [*range(20, 26)]


def test_a_cut_file_has_the_frames_up_to_the_cut(tmp_path):
    whole = write_clip(tmp_path / "whole.mkv", frames=100).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    numbers = read(tmp_path / "cut.mkv", range(len(index(tmp_path / "cut.mkv"))))
    assert 40 < len(numbers) < 80
    assert [seen for _, seen in numbers[:-4]] == list(range(len(numbers) - 4))


def test_a_cut_file_whose_header_is_first_says_what_is_missing(tmp_path):
    import av

    write_clip(tmp_path / "whole.mp4", frames=100)
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "+faststart"}) as copy,
    ):
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    content = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 6 // 10])
    found = index(tmp_path / "cut.mp4")
    assert found.fault.startswith("truncated: ")
    assert "100 frames" in found.fault
    seen = read(tmp_path / "cut.mp4", range(len(found)))
    assert [number for number, _ in seen] == list(range(len(found)))
    good = [number for number, shown in seen if shown == number]
    assert len(good) >= len(found) - 4
    assert good[:30] == list(range(30))


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_damage_in_the_middle_costs_the_frames_there(tmp_path, name):
    path = write_clip(tmp_path / name, frames=60, gop=10, b_frames=0)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 60] = bytes(60)
    path.write_bytes(content)
    found = index(path)
    shown = [number for _, number in read(path, range(len(found)))]
    at = np.rint(found.seconds * 25).astype(int)  # a container may lose frames, and the times of the others stay
    assert [number for number in shown if number is not None] == [
        time for time, number in zip(at, shown, strict=True) if number is not None
    ]
    assert 59 in shown
    assert 30 < sum(number is not None for number in shown) < 60


@pytest.mark.parametrize(
    ("name", "words"),
    [("text.mp4", "unreadable"), ("empty.mp4", "unreadable"), ("gone.mp4", "no such file"), ("sound.mp4", "sound")],
)
def test_what_is_no_video_is_one_line(tmp_path, name, words):
    (tmp_path / "text.mp4").write_text("no video" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    if name == "sound.mp4":
        _write_sound(tmp_path / name)
    with pytest.raises(DataError, match=words) as caught:
        index(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_video_without_a_frame_is_one_line(tmp_path):
    write_clip(tmp_path / "none.mkv", frames=0)
    with pytest.raises(DataError, match=r"no frame|unreadable") as caught:
        index(tmp_path / "none.mkv")
    assert "\n" not in str(caught.value)


def test_a_file_that_goes_away_is_one_line(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=3)
    found = index(path)
    shutil.move(path, tmp_path / "elsewhere.mp4")
    with pytest.raises(DataError, match="no such file"):
        next(read_frames(Folder.at(tmp_path), "clip.mp4", found, [0]))


def _write_sound(path) -> None:
    import av

    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
