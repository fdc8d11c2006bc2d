"""What is done with the landmarks of a video after its frames are predicted: smoothed, their jitter measured, drawn.

Frames are predicted in parts, on any number of workers. Smoothing and drawing go through them in the order of time, in this
process, a part at a time.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Annotated, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.errors import DataError
from ray_kplm.job_copy import refuse_lost
from ray_kplm.progress import ProgressCallback
from ray_kplm.ranges import Range, check_ranges
from ray_kplm.storage import Folder
from ray_kplm.video.options import SmoothOptions
from ray_kplm.video.overlay import Overlay
from ray_kplm.video.reader import VideoIndex, Videos, read_frames
from ray_kplm.video.smoothing import Jitter, OneEuro
from ray_kplm.video.writer import EXTENSIONS, choose_encoder, writing_video

JitterFigures: TypeAlias = dict[str, dict[str, float | None]]
"""Of each video the jitter before and after smoothing, pixels a frame (`before`, `after`) and as shares of the object's size
(`before_of_size`, `after_of_size`), see `video.smoothing.Jitter`; without smoothing before alone."""
_SHOWN = 8
"""Videos whose jitter is printed."""
_REPORT_FRAMES = 50


@dataclass(frozen=True)
class RenderOptions:
    """A video to write, with the landmarks drawn."""

    path: str
    """A file .mp4, .mov or .mkv for one video, or a folder, in which each video has its name."""
    trail: Annotated[int, Range(0, 1000)] = 10
    """Number of earlier frames in which a landmark's way is drawn."""
    numbers: bool = True
    """Whether the landmarks' names are drawn, or their numbers where they were given no names."""

    def __post_init__(self) -> None:
        check_ranges(self, "render: ")

    def check(self, videos: Videos | None) -> None:
        """Raise DataError if there is no video to draw on, several for one file, or no encoder."""
        refuse_lost(self.path, "--render")
        if videos is None or not videos.index:
            raise DataError(f"--render {self.path}: the source has no video file; leave the option out for images")
        if self._is_file and len(videos.index) > 1:
            raise DataError(f"--render {self.path}: the source has {len(videos.index)} videos; name a folder for them")
        sources = {f"{videos.folder}/{video}" for video in videos.index}
        for video in videos.index:
            folder, name = self.target(video)
            if f"{folder}/{name}" in sources:
                raise DataError(f"--render {self.path}: would replace the source {video}; choose another place")
        choose_encoder()

    @property
    def _is_file(self) -> bool:
        return self.path.lower().endswith(EXTENSIONS)

    def target(self, video: str) -> tuple[Folder, str]:
        """Return the folder and the name of the file for a video, given by its path below the source."""
        folder = Folder.at(self.path)
        if self._is_file:
            return folder.parent, folder.name
        above, name = posixpath.split(video)
        return folder / above if above else folder, name if name.endswith(".mp4") else f"{name}.mp4"


def check_videos(videos: Videos | None, smooth: SmoothOptions, render: RenderOptions | None) -> None:
    """Raise DataError if what is asked for needs videos, and the source has none, or if they cannot be drawn."""
    if smooth.method != "none" and not (videos and videos.index):
        raise DataError(f"--smooth {smooth.method}: the source has no video file; leave the option out for images")
    if render is not None:
        render.check(videos)


def smooth_parts(source: Folder, target: Folder, parts: Sequence[str], options: SmoothOptions) -> JitterFigures:
    """Write the parts of landmarks (schemas.SOURCE_LANDMARKS) smoothed over time, and return the jitter of each video.

    Landmarks that are no frames of a video with known times stay as they are. Object number n of a frame, of several boxes, is
    taken for the same as object n of the frame before.

    Args:
        source: The parts as they were predicted.
        target: Where they are written; without smoothing nothing is.
        parts: Their names, in the order of time.
        options: The filter.
    """
    is_smooth = options.method != "none"
    figures: dict[str, _Track] = {}
    for part in parts:
        table = source.read_table(part)
        rows = table.to_pylist()
        xy = [_smoothed(figures, row, options) for row in rows]
        if is_smooth:
            column = pa.array(
                [points.astype(np.float32).tolist() for points in xy], schemas.SOURCE_LANDMARKS.field("xy").type
            )
            place = schemas.SOURCE_LANDMARKS.get_field_index("xy")
            target.write_table(part, table.set_column(place, schemas.SOURCE_LANDMARKS.field("xy"), column))
    return {video: track.figures(is_smooth) for video, track in figures.items()}


def _smoothed(tracks: dict[str, _Track], row: Mapping[str, Any], options: SmoothOptions) -> NDArray[np.float64]:
    xy = np.array(row["xy"], np.float64).reshape(-1, 2)
    if row["sequence"] is None or row["time"] is None:
        return xy
    return tracks.setdefault(row["sequence"], _Track(options)).add(row, xy)


class _Track:
    """A video that is smoothed, and its jitter."""

    def __init__(self, options: SmoothOptions) -> None:
        self._options, self._filters = options, dict[int, OneEuro]()
        self._before, self._after = Jitter(), Jitter()

    def add(self, row: Mapping[str, Any], xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smoothed landmarks of an object of the next frame: (K, 2)."""
        number, found = object_number(row["image_id"]), np.array(row["found"], bool)
        self._before.add(number, row["frame"], xy, found)
        if self._options.method == "none":
            return xy
        if number not in self._filters:
            side = max(row["width"] or 1, row["height"] or 1)
            self._filters[number] = OneEuro(self._options, side)
        smooth = self._filters[number](row["time"], xy, found)
        self._after.add(number, row["frame"], smooth, found)
        return smooth

    def figures(self, is_smooth: bool) -> dict[str, float | None]:
        """Return the jitter: see `JitterFigures`."""
        figures = {"before": self._before.pixels, "before_of_size": self._before.of_size}
        return figures | ({"after": self._after.pixels, "after_of_size": self._after.of_size} if is_smooth else {})


def object_number(image_id: str) -> int:
    """Return the number of the object that an id names: 3 of `clip.mp4/000012#3`, 0 of `clip.mp4/000012`."""
    _, sign, number = image_id.rpartition("#")
    return int(number) if sign and number.isdecimal() else 0


def jitter_lines(jitter: JitterFigures) -> list[str]:
    """Return the jitter of videos for people, a line each."""
    lines = []
    for video, figures in list(jitter.items())[:_SHOWN]:
        before, share = figures["before"], figures["before_of_size"]
        if before is None or share is None:
            lines.append(f"{video}: no landmark is found in three successive frames")
            continue
        line = f"{video}: jitter {before:.3g} px a frame, {share:.2%} of the object's size"
        after, share = figures.get("after"), figures.get("after_of_size")
        if after is not None and share is not None:
            line += f"; smoothed {after:.3g} px, {share:.2%}"
        lines.append(line)
    return lines


def read_jitter(manifest: Mapping[str, Any]) -> JitterFigures:
    """Return the jitter that the manifest of a prediction has."""
    return {video: dict(figures) for video, figures in manifest.get("jitter", {}).items()}


def render_videos(
    landmarks: Folder,
    videos: Videos | None,
    options: RenderOptions | None,
    names: Sequence[str],
    edges: Sequence[tuple[int, int]],
    progress: ProgressCallback,
) -> tuple[str, ...]:
    """Write the videos of a prediction with their landmarks drawn, and return where they are.

    A frame that cannot be decoded is left out; the times of the others stay.

    Args:
        landmarks: The parts of the prediction.
        videos: The source.
        options: Where and how; None: nothing is written.
        names: Of the landmarks, K.
        edges: Pairs of landmarks that lines join.
        progress: Called every few frames.
    """
    if options is None or videos is None:
        return ()
    written = []
    rows = (row for part in landmarks.parts() for row in landmarks.read_table(part).to_pylist())
    for video, of_video in groupby(rows, key=lambda row: row["sequence"]):
        if video in videos.index:
            written.append(
                _render(videos.folder, video, videos.index[video], of_video, options, (names, edges), progress)
            )
    return tuple(written)


_NamesAndEdges = tuple[Sequence[str], Sequence[tuple[int, int]]]
"""Names of the landmarks, and the pairs that lines join."""


def _render(
    folder: Folder, video: str, index: VideoIndex, rows: Iterable[Mapping[str, Any]], options: RenderOptions,
    drawn: _NamesAndEdges, progress: ProgressCallback,
) -> str:  # fmt: skip
    target, name = options.target(video)
    if target.is_local:
        os.makedirs(target.path, exist_ok=True)
    # The end of an MP4 file is written before its middle, which an object store cannot do.
    with tempfile.TemporaryDirectory(prefix=".render-", dir=target.path if target.is_local else None) as scratch:
        path = f"{scratch}/{name}"
        _draw(path, read_frames(folder, video, index, range(len(index))), index, rows, options, drawn, video, progress)
        with open(path, "rb") as done, target.writing(name) as stream:
            shutil.copyfileobj(done, stream)
    return f"{target}/{name}"


def _draw(
    path: str, frames: Iterator[Any], index: VideoIndex, rows: Iterable[Mapping[str, Any]], options: RenderOptions,
    drawn: _NamesAndEdges, video: str, progress: ProgressCallback,
) -> None:  # fmt: skip
    names, edges = drawn
    overlay = Overlay(len(names), trail=options.trail, labels=names if options.numbers else (), edges=edges)
    by_frame = groupby(rows, key=lambda row: int(row["frame"]))
    following = next(by_frame, None)
    first = next((frame for frame in frames if frame.rgb is not None), None)
    if first is None:
        raise DataError(f"--render {options.path}: no frame of {video} can be decoded")
    height, width = first.rgb.shape[:2]
    with writing_video(path, (width, height), index.time_base, index.rate) as writer:
        for frame in chain([first], frames):
            while following is not None and following[0] < frame.number:
                following = next(by_frame, None)
            objects = dict(map(_drawn, following[1])) if following is not None and following[0] == frame.number else {}
            if frame.rgb is not None:
                writer.add(overlay(frame.rgb, objects), int(index.pts[frame.number]))
            if frame.number % _REPORT_FRAMES == 0 or frame.number == len(index) - 1:
                progress((frame.number + 1) / len(index), f"drawn: {frame.number + 1}/{len(index)} frames of {video}")


def _drawn(row: Mapping[str, Any]) -> tuple[int, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Return an object as `Overlay` takes it."""
    return object_number(row["image_id"]), (np.array(row["xy"], np.float64), np.array(row["found"], bool))
