"""Opening of video files: their frames as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2

from ray_kplm.datasets import image_io
from ray_kplm.datasets.ingest_source import OpenedPicture, Sample
from ray_kplm.errors import DataError
from ray_kplm.storage import Folder


def open_video(source: Folder, path: str, samples: Sequence[Sample]) -> Iterator[OpenedPicture]:
    """Yield the frame `sample.frame[1]` of a video for each sample; frames count from 0 and must ascend.

    The video is on the local disk. It is decoded from the start, frame by frame, because seeking is inexact in videos with
    predicted frames.

    Raises:
        DataError: The video cannot be opened or is too short.
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
