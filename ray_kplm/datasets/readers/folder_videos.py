"""Videos in a folder of images: each frame is an image of its own, called `clip.mp4/000012`, in the sequence `clip.mp4`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ray_kplm.datasets import file_kinds
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.image_io import Picture
from ray_kplm.datasets.ingest_source import OpenedPicture, Sample, open_image
from ray_kplm.datasets.limits import Limits
from ray_kplm.datasets.source_files import starts
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder
from ray_kplm.video.pyav import import_av
from ray_kplm.video.reader import VideoIndex, index_video, read_frames

_DIGITS = 6
"""Of the number of a frame in its name, at least."""


@dataclass
class FrameNames:
    """The frames of some videos as images.

    Attributes:
        frames: Name -> the video and the number of the frame, in the order of the videos and of their frames.
        index: Of each video.
        rejected: Path and reason of videos that cannot be used, and of those whose end is lost.
    """

    frames: dict[str, tuple[str, int]] = field(default_factory=dict)
    index: dict[str, VideoIndex] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)


def list_frames(source: Folder, videos: Iterable[str], every: int, limits: Limits) -> FrameNames:
    """List every `every`-th frame of the videos at some paths below a folder, from the first one on.

    Raises:
        ConfigError: There is a video, and PyAV is not installed.
    """
    found = FrameNames()
    for path in videos:
        import_av()
        try:
            index = index_video(source, path)
            limits.check_size(*index.size)
        except DataError as error:
            found.rejected.append((path, str(error)))
            continue
        if index.fault:
            found.rejected.append((path, index.fault))
        digits = max(_DIGITS, len(str(len(index) - 1)))
        found.index[path] = index
        found.frames |= {f"{path}/{number:0{digits}d}": (path, number) for number in range(0, len(index), every)}
    return found


def videos_among(source: Folder, paths: Sequence[str]) -> list[str]:
    """Return which of these paths are videos: by extension, or by content if the extension does not say."""
    unknown = [path for path in paths if file_kinds.needs_a_look(file_kinds.extension_of(path))]
    looked = zip(unknown, starts(source, unknown, file_kinds.SIGNATURE_BYTES), strict=True)
    content = {path: file_kinds.kind_of_content(start) for path, start in looked}
    return [path for path in paths if file_kinds.is_video(content.get(path, file_kinds.extension_of(path)))]


def split_videos(frames: dict[str, tuple[str, int]], options: IngestOptions, *, alone: bool) -> dict[str, str]:
    """Return the split of each frame: that of its video, as neighbouring frames are nearly the same picture.

    Of several videos the nearest number to `test_share` is for testing, at least one, chosen by a seeded hash. Of one video
    that is the whole source the last frames are for testing.

    Args:
        frames: Name -> the video and the number of the frame.
        options: The share and the seed.
        alone: Whether the source has nothing else; one video among pictures is drawn as they are.
    """
    names: dict[str, list[str]] = {}
    for name, (video, _) in frames.items():
        names.setdefault(video, []).append(name)
    videos = sorted(names, key=lambda video: hashlib.sha256(f"{options.seed}:{video}".encode()).digest())
    if options.test_share == 0 or (len(videos) == 1 and not alone):
        return {}
    if len(videos) == 1:
        of_video = names[videos[0]]
        last = len(of_video) - round(options.test_share * len(of_video))
        return {name: TRAIN if place < last else TEST for place, name in enumerate(of_video)}
    testing = min(len(videos) - 1, max(1, round(options.test_share * len(videos))))
    return {name: TEST if place < testing else TRAIN for place, video in enumerate(videos) for name in names[video]}


@dataclass(frozen=True)
class OpenPictures:
    """Opens image files, and frames of videos: an `ingest_source.Opener`.

    Attributes:
        videos: Path -> what is known of the video.
        limits: Of an image file and of a picture.
    """

    videos: dict[str, VideoIndex]
    limits: Limits

    def __call__(self, source: Folder, path: str, samples: Sequence[Sample]) -> Iterator[OpenedPicture | DataError]:
        """Yield the picture of each sample, or the reason why this frame cannot be used.

        Raises:
            DataError: The file cannot be read.
        """
        if path not in self.videos:
            yield from open_image(source, path, samples, self.limits)
            return
        numbers = [sample.frame[1] for sample in samples if sample.frame is not None]
        decoded = read_frames(source, path, self.videos[path], sorted(set(numbers)))
        frame = next(decoded, None)
        for number in numbers:  # several objects of a frame follow each other
            while frame is not None and frame.number < number:
                frame = next(decoded, None)
            if frame is None or frame.rgb is None:
                yield DataError("undecodable: damaged, or what it is predicted from is")
            else:
                yield b"", Picture(frame.rgb, plain=False)
