"""Writing of videos: frames with the times of another video, as H.264 where the encoder is there, else as MPEG-4."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.errors import DataError
from ray_kplm.video.pyav import import_av

ENCODERS = {"libx264": {"crf": "18", "preset": "fast"}, "libopenh264": {}, "mpeg4": {"qscale": "3"}}
"""Encoders in the order of choice, and their options."""
EXTENSIONS = (".mp4", ".mov", ".mkv")
_MPEG4_UNITS = 60_000
"""Units of a second in MPEG-4 part 2, which has no room for more than 65,535."""


def choose_encoder() -> str:
    """Return the name of the first of ENCODERS that this installation has.

    Raises:
        DataError: There is none.
        ConfigError: PyAV is not installed.
    """
    av = import_av()
    for name in ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except (av.FFmpegError, ValueError):
            continue
        return name
    raise DataError(f"--render: this PyAV has no encoder of {', '.join(ENCODERS)}; install another build of av")


class VideoWriter:
    """An open video, to which frames are added one after the other."""

    def __init__(self, stream: Any, container: Any, time_base: Fraction, size: tuple[int, int]) -> None:
        self._stream, self._container, self._time_base, self._size = stream, container, time_base, size
        self._av = import_av()
        self._first: int | None = None

    def add(self, rgb: NDArray[np.uint8], pts: int) -> None:
        """Add a frame.

        Args:
            rgb: (H, W, 3). It keeps its pixels: one more column or row is repeated where a side is odd. A frame of another
                size than the video is scaled to it.
            pts: When it is shown, in units of the time base that the video was opened with; the first frame is shown at 0.
        """
        self._first = pts if self._first is None else self._first
        width, height = self._size
        if rgb.shape[:2] != (height, width):
            import cv2

            rgb = np.asarray(cv2.resize(rgb, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        if width % 2 or height % 2:
            rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        unit = self._stream.codec_context.time_base
        frame.time_base, frame.pts = unit, round((pts - self._first) * self._time_base / unit)
        self._container.mux(self._stream.encode(frame))


@contextmanager
def writing_video(
    path: str, size: tuple[int, int], time_base: Fraction, rate: Fraction, *, encoder: str | None = None
) -> Iterator[VideoWriter]:
    """Open a video file to write to; it is complete when the block ends.

    Args:
        path: Of a local file, whose extension is one of EXTENSIONS.
        size: Width and height, pixels; odd ones are made even.
        time_base: Seconds of one unit of the frames' times.
        rate: Frames a second, the average.
        encoder: One of ENCODERS; None: the first that is there.
    """
    av = import_av()
    name = encoder or choose_encoder()
    options = {"movflags": "+faststart"} if not path.endswith(".mkv") else {}
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(name, rate=rate.limit_denominator(1001), options=ENCODERS[name])
        stream.width, stream.height = (side + side % 2 for side in size)
        stream.pix_fmt = "yuv420p"
        unit = time_base if name != "mpeg4" or time_base.denominator <= _MPEG4_UNITS else Fraction(1, _MPEG4_UNITS)
        stream.codec_context.time_base = unit
        yield VideoWriter(stream, container, time_base, size)
        container.mux(stream.encode(None))
