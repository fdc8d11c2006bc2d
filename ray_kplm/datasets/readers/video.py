"""Frames of a video file as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2

from ray_kplm.datasets import image_io
from ray_kplm.datasets.ingest_source import Opened, Sample
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder


def open_video(source: Folder, path: str, samples: Sequence[Sample]) -> Iterator[Opened]:
    """The frames `sample.frame[1]`, from 0 and ascending, of a video on the local disk.

    Read from the start, frame by frame: seeking lands beside the wanted frame in videos coded with differences.
    """
    video = cv2.VideoCapture(f"{source.path}/{path}")
    try:
        if not video.isOpened():
            raise DataError("unreadable: no video that OpenCV opens")
        at = 0
        for sample in samples:
            assert sample.frame is not None
            wanted = sample.frame[1]
            while at <= wanted:
                if not video.grab():
                    raise DataError(f"truncated: the video ends after {at} frames, before frame {wanted}")
                at += 1
            done, bgr = video.retrieve()
            if not done:
                raise DataError(f"unreadable: frame {wanted} of the video")
            yield b"", image_io.Picture(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), plain=False)
    finally:
        video.release()
