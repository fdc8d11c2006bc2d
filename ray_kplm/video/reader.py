"""Exact reading of a video's frames: which there are, when each is shown, and the pixels of any range of them.

Frames are numbered from 0 in the order in which they are shown. `index_video` reads the packets once, without decoding,
so it knows each frame's time before any is decoded. `read_frames` decodes from the last key frame before those that are wanted,
and takes frames by their times, so a range has the same frames wherever the decoding began. In containers whose times are no
help for that, such as AVI, it decodes from the start and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import DataError
from ray_kplm.storage import Folder
from ray_kplm.video.pyav import import_av

_BY_TIME = ("mov", "matroska", "flv", "mpegts")
"""Beginnings of the names of the containers that have a time for every frame, and find it."""
_SEEK_ATTEMPTS = 3
"""Key frames to begin at, one before the other, until the first frame decoded is not later than the first one wanted."""


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """What is known of a video without decoding it.

    Attributes:
        pts: int64 (F,), ascending: when each frame is shown, in units of `time_base`.
        time_base: Seconds of one unit.
        rate: Frames a second, the average.
        key_pts: int64 (Q,), ascending: of the key frames.
        key_dts: int64 (Q,): of their packets, where decoding can begin.
        size: Width and height of the frames as they are stored, before they are turned upright, pixels.
        by_time: Whether frames are told by their times; if not, they are counted from the start of the video.
        fault: What is wrong with its end, as a reason for `rejected.parquet`; empty: nothing.
    """

    pts: NDArray[np.int64]
    time_base: Fraction
    rate: Fraction
    key_pts: NDArray[np.int64]
    key_dts: NDArray[np.int64]
    size: tuple[int, int]
    by_time: bool = True
    fault: str = ""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """When each frame is shown, seconds after the first: (F,)."""
        return np.asarray((self.pts - self.pts[:1]) * float(self.time_base), np.float64)


@dataclass(frozen=True)
class Videos:
    """The videos of a source.

    Attributes:
        folder: The source.
        index: Path below the folder -> what is known of the video.
    """

    folder: Folder
    index: dict[str, VideoIndex]


class Frame(NamedTuple):
    """A decoded frame: its number and its picture, uint8 (H, W, 3) RGB, upright; None if it cannot be decoded."""

    number: int
    rgb: NDArray[np.uint8] | None


def index_video(folder: Folder, name: str) -> VideoIndex:
    """Read the times of a video's frames. The whole file is read once, a packet at a time.

    Raises:
        DataError: It is no video, or has no frame; the message is a reason for `rejected.parquet`.
    """
    pts: list[int | None] = []
    keys: list[tuple[int, int]] = []
    fault = ""
    with _opened(folder, name) as (av, container, stream):
        form, size = container.format.name, (stream.codec_context.width, stream.codec_context.height)
        expected = stream.frames if form.startswith("mov") else 0  # others count parts of it, or guess
        time_base, rate = Fraction(stream.time_base), Fraction(stream.average_rate or stream.guessed_rate or 25)
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    pts.append(packet.pts)
                    if packet.is_keyframe and packet.pts is not None:
                        keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        except (av.FFmpegError, OSError) as error:
            fault = f"truncated: {_line(error)} after {len(pts)} frames"
    if not pts:
        raise DataError(fault or "no frame: the video is empty")
    if not fault and len(pts) < expected:
        fault = f"truncated: the file has {len(pts)} of the video's {expected} frames"
    known = np.unique(np.array([one for one in pts if one is not None], np.int64))
    is_timed = len(known) == len(pts)
    if not is_timed:
        known, time_base = np.arange(len(pts), dtype=np.int64), 1 / rate
    elif len(pts) > 1:
        rate = (len(pts) - 1) / (int(known[-1] - known[0]) * time_base)
    by_time = is_timed and bool(keys) and form.startswith(_BY_TIME)
    key_pts, key_dts = np.array(sorted(keys), np.int64).reshape(-1, 2).T
    return VideoIndex(known, time_base, rate, key_pts, key_dts, size, by_time, fault)


def read_frames(folder: Folder, name: str, index: VideoIndex, numbers: Sequence[int]) -> Iterator[Frame]:
    """Yield frames of a video in their order. One frame is held at a time.

    Args:
        folder: Where the video is.
        name: Of the file.
        index: What `index_video` returned for it.
        numbers: Of the frames, ascending, each once.

    Raises:
        DataError: The file cannot be opened any more.
    """
    if not len(numbers):
        return
    wanted, done = list(numbers), 0
    number_of = {int(index.pts[number]) if index.by_time else number: number for number in wanted}
    with _opened(folder, name) as (av, container, stream):
        for mark, frame in _decoded(av, container, stream, index, min(number_of), max(number_of)):
            number = number_of.get(mark)
            if number is None or frame is None:
                continue
            while done < len(wanted) and wanted[done] < number:
                yield Frame(wanted[done], None)
                done += 1
            if done < len(wanted) and wanted[done] == number:
                yield Frame(number, _upright(frame))
                done += 1
    for number in wanted[done:]:
        yield Frame(number, None)


def _decoded(
    av: Any, container: Any, stream: Any, index: VideoIndex, first: int, last: int
) -> Iterator[tuple[int, Any]]:
    """Yield frames from `first` or before it to `last`, with their times or numbers; damaged ones are left out."""
    if not index.by_time:
        yield from _until(enumerate(_frames(av, container, stream, counted=True)), last)
        return
    place = int(np.searchsorted(index.key_pts, first, side="right")) - 1
    # A container may take a time for that of decoding or of showing, so where it went is checked.
    for start in [*range(place, max(-1, place - _SEEK_ATTEMPTS), -1), None]:
        if start is not None and not _seek(av, container, stream, int(index.key_dts[start])):
            continue
        if start is None and not _seek(av, container, stream, int(min(index.key_dts[0], index.pts[0])) - 1):
            container.seek(0)
        frames = (
            (frame.pts, frame)
            for frame in _frames(av, container, stream)
            if frame is not None and frame.pts is not None
        )
        opening = next(frames, None)
        if opening is not None and (opening[0] <= first or start is None):
            yield from _until(_with(opening, frames), last)
            return


def _seek(av: Any, container: Any, stream: Any, dts: int) -> bool:
    try:
        container.seek(dts, stream=stream, backward=True, any_frame=False)
    except av.FFmpegError:
        return False
    return True


def _with(opening: tuple[int, Any], frames: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    yield opening
    yield from frames


def _until(frames: Iterator[tuple[int, Any]], last: int) -> Iterator[tuple[int, Any]]:
    for pts, frame in frames:
        if pts > last:
            return
        yield pts, frame


def _frames(av: Any, container: Any, stream: Any, *, counted: bool = False) -> Iterator[Any]:
    """Yield the frames that can be decoded from where the container is, to the end of what can be read.

    None stands for a frame that is damaged. So are all after it up to the next key frame, as they are predicted from it, and
    decoders do not say so. If frames are counted, the first packet that gives none is the end.
    """
    packets, sound = container.demux(stream), True
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            packet = None
        try:
            for frame in stream.decode(packet):
                sound = not frame.is_corrupt and (sound or frame.key_frame)
                yield frame if sound else None
        except av.FFmpegError:
            sound = False
            if packet is None or counted:
                return
        if packet is None or not packet.size:
            return


def _upright(frame: Any) -> NDArray[np.uint8]:
    """Return a frame as a player shows it, turned by the rotation that its file asks for."""
    rgb = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4))


@contextmanager
def _opened(folder: Folder, name: str) -> Iterator[tuple[Any, Any, Any]]:
    """Open a file and its first video stream: the module `av`, the container and the stream."""
    av = import_av()
    if not folder.is_file(name):
        raise DataError("unreadable: no such file, or deleted since the folder was listed")
    stream_or_path = (
        f"{folder.path}/{name}" if folder.is_local else folder.filesystem.open_input_file(f"{folder.path}/{name}")
    )
    try:
        container = av.open(stream_or_path)
    except (av.FFmpegError, OSError, UnicodeError) as error:
        raise DataError(f"unreadable: no video that can be opened: {_line(error)}") from None
    with container:
        # A cover picture of an audio file is a video stream, too.
        streams = [one for one in container.streams.video if not one.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise DataError("no video: the file has no picture, sound alone")
        stream = streams[0]
        stream.codec_context.thread_count = 1  # a worker has one CPU
        yield av, container, stream


def _line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).lower()
