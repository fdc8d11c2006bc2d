"""Made videos whose frames say their own numbers, so that a test sees which frame it was given."""

from fractions import Fraction
from pathlib import Path

import numpy as np

BITS = 10
"""Of the number in a frame."""


def numbered(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Return a frame (H, W, 3) with its number as white and black squares in the upper half and a square that moves below."""
    rgb = np.full((height, width, 3), 96, np.uint8)
    cell = width // BITS
    for bit in range(BITS):
        rgb[: height // 4, bit * cell : (bit + 1) * cell] = 255 if number >> bit & 1 else 0
    left = 4 + 2 * number % (width - 24)
    rgb[height // 2 : height // 2 + 16, left : left + 16] = (230, 40, 40)
    return rgb


def number_of(rgb: np.ndarray) -> int:
    """Return the number that a frame has, however it was encoded."""
    height, width = rgb.shape[:2]
    cell = width // BITS
    bits = [rgb[2 : height // 4 - 2, bit * cell + 2 : (bit + 1) * cell - 2].mean() > 128 for bit in range(BITS)]
    return sum(1 << bit for bit, is_set in enumerate(bits) if is_set)


def write_clip(
    path: Path,
    frames: int = 40,
    *,
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 600),
    encoder: str = "libx264",
    b_frames: int = 2,
    gop: int = 12,
    rotation: int = 0,
    audio: bool = False,
    size: tuple[int, int] = (96, 64),
) -> Path:
    """Write a video of numbered frames, 25 a second if no times are given."""
    import av

    options = {"bf": str(b_frames), "g": str(gop), "sc_threshold": "0"} if encoder == "libx264" else {"g": str(gop)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        if audio:
            sound = container.add_stream("aac", rate=8000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            container.mux(sound.encode(silence))
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.time_base = time_base
            frame.pts = pts[number] if pts else round(number / 25 / time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio:
            container.mux(sound.encode(None))
    return path
