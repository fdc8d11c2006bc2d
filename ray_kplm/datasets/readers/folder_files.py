"""The pictures of a folder: which files they are, each content once, and the splits that the folders' names give."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_kplm.datasets import file_kinds
from ray_kplm.datasets.dataset import IngestOptions, split_of
from ray_kplm.datasets.duplicates import same_content
from ray_kplm.datasets.readers.folder_videos import list_frames, videos_among
from ray_kplm.datasets.source_files import SourceFile, list_files, starts
from ray_kplm.datasets.split_names import VAL, are_splits, role_of_path, split_of_role
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder
from ray_kplm.video.pyav import is_installed
from ray_kplm.video.reader import VideoIndex


@dataclass
class Pictures:
    """The pictures of a folder.

    Attributes:
        paths: Sorted, below the folder. Copies are among them if a user's table may name them.
        dropped: Copies that are not used.
        split: Of the paths whose split the folders give; empty if they give none.
        original: Of each copy that is used, the path with the same content that decides its split.
        rejected: Path and reason of what is not used.
        notes: What was decided.
        skipped: Number of files of kinds that are not read, by extension.
        other_files: Number of files that are no pictures.
        videos: The files that are videos, if they are taken.
        frames: Of the paths that are frames of videos, the video and the number of the frame.
        index: Of the videos.
    """

    paths: list[str]
    dropped: set[str] = field(default_factory=set)
    split: dict[str, str] = field(default_factory=dict)
    original: dict[str, str] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    other_files: int = 0
    videos: list[SourceFile] = field(default_factory=list)
    frames: dict[str, tuple[str, int]] = field(default_factory=dict)
    index: dict[str, VideoIndex] = field(default_factory=dict)
    _identity: Any = field(default_factory=hashlib.sha256)

    def decided(self, *words: str) -> None:
        """Make a decision part of the identity, which otherwise follows from the files."""
        self._identity.update(("\0".join(words) + "\n").encode())

    @property
    def identity(self) -> Any:
        """Hash of the names, sizes and times of the pictures, and of what was decided about them."""
        return self._identity.copy()


def list_pictures(source: Folder, options: IngestOptions) -> Pictures:
    """List the pictures of a folder. Hidden files do not exist; kinds of files that are not read are counted.

    Raises:
        DataError: The folder cannot be listed.
    """
    pictures, used = _look(source, options)
    _add_frames(pictures, source, [file.path for file in pictures.videos], options)
    paths = sorted([*(file.path for file in used), *pictures.frames])
    if options.input_size is not None:  # landmarks are predicted for every name, of whatever split
        pictures.paths = paths
        return pictures
    _find_splits(pictures, paths)
    links, used = _links(used, pictures.split)
    if has_tables(options):
        _keep_together(pictures, links, options)
    else:
        _drop(pictures, links, "link: the same file as")
    _treat_copies(pictures, source, used, options)
    pictures.paths = [path for path in paths if has_tables(options) or path not in pictures.dropped]
    return pictures


def list_chosen_files(source: Folder, paths: Sequence[str], options: IngestOptions) -> Pictures:
    """Return the files at some paths of a folder as pictures, whatever their names, and the frames of those that are videos.

    Raises:
        ConfigError: One is a video, and PyAV is not installed.
    """
    pictures = Pictures([])
    videos = videos_among(source, paths)
    _add_frames(pictures, source, videos, options)
    pictures.paths = sorted([*(set(paths) - set(videos)), *pictures.frames])
    return pictures


def list_below(source: Folder, options: IngestOptions) -> Pictures:
    """List the pictures of a folder, and its videos as files, without a choice among them.

    Raises:
        DataError: The folder cannot be listed.
    """
    pictures, used = _look(source, options)
    pictures.paths = [file.path for file in sorted([*used, *pictures.videos])]
    return pictures


def _look(source: Folder, options: IngestOptions) -> tuple[Pictures, list[SourceFile]]:
    """Return what a folder has, with its videos if they are taken, and the files that are pictures."""
    files, faults = list_files(source)
    pictures = Pictures([])
    pictures.rejected += [(f.path, f.reason) for f in faults if f.is_folder or _may_be_picture(f.path)]
    used = list(_pictures_among(source, files, pictures, videos=options.every is not None and is_installed()))
    for file in [*used, *pictures.videos]:
        pictures.decided(file.path, str(file.size), str(file.modified_ns))
    return pictures, used


def _add_frames(pictures: Pictures, source: Folder, videos: Sequence[str], options: IngestOptions) -> None:
    """Add the frames of videos."""
    found = list_frames(source, videos, options.every or 1, options.limits)
    pictures.frames, pictures.index = found.frames, found.index
    pictures.rejected += found.rejected
    if found.index:
        pictures.decided("every", str(options.every or 1))


def has_tables(options: IngestOptions) -> bool:
    """Return whether a user's table may have another box or place for each name of a picture."""
    return bool(options.boxes or options.landmarks or options.sequences)


def _may_be_picture(path: str) -> bool:
    extension = file_kinds.extension_of(path)
    return file_kinds.is_picture(extension) or file_kinds.needs_a_look(extension)


def _pictures_among(
    source: Folder, files: list[SourceFile], pictures: Pictures, *, videos: bool
) -> Iterator[SourceFile]:
    """Yield the files that are pictures, by extension, or by content if the extension does not say; count the others.

    If videos are taken, they are added to the pictures' `videos`.
    """
    unnamed = [file.path for file in files if file_kinds.needs_a_look(file_kinds.extension_of(file.path))]
    looked = zip(unnamed, starts(source, unnamed, file_kinds.SIGNATURE_BYTES), strict=True)
    content = {path: file_kinds.kind_of_content(start) for path, start in looked}
    skipped: Counter[str] = Counter()
    for file in files:
        kind = content.get(file.path, file_kinds.extension_of(file.path))
        if file_kinds.is_picture(kind):
            yield file
        elif videos and file_kinds.is_video(kind):
            pictures.videos.append(file)
        elif file_kinds.is_known_unread(kind):
            skipped[kind] += 1
        else:
            pictures.other_files += 1
    pictures.skipped = dict(skipped.most_common())


def _find_splits(pictures: Pictures, paths: list[str]) -> None:
    """Find the splits that the folders' names give, and note what they leave open."""
    role_of = {path: role for path in paths if (role := role_of_path(path))}
    roles = Counter(role_of.values())
    if not are_splits(roles):
        if roles:
            said = " and ".join(sorted(roles))
            pictures.notes.append(f"folders are named {said} alone, so the splits are drawn from all pictures")
        return
    pictures.split = {path: split_of_role(role_of[path], roles) if path in role_of else TRAIN for path in paths}
    others = len(paths) - roles.total()
    if roles[VAL]:
        use = "training" if roles[TEST] else "testing"
        pictures.notes.append(f"in folders named val: {_count(roles[VAL])}, used for {use}")
    if others:
        pictures.notes.append(f"outside of the folders of the splits: {_count(others)}, used for training")
    if {path.partition("/")[0] for path in paths} != {TRAIN, TEST}:
        pictures.decided("splits", *sorted(roles))


def _links(files: list[SourceFile], split: dict[str, str]) -> tuple[list[list[str]], list[SourceFile]]:
    """Return the groups of names of one file, the one to keep first, and the files by that name."""
    names: dict[tuple[int, int] | str, list[SourceFile]] = {}
    for file in files:
        names.setdefault(file.inode or file.path, []).append(file)
    groups = [sorted(group, key=lambda file: _rank(file.path, split)) for group in names.values()]
    return [[file.path for file in group] for group in groups if len(group) > 1], [group[0] for group in groups]


def _rank(path: str, split: dict[str, str]) -> tuple[bool, str]:
    """Return the sort key by which one of the same pictures is kept: that for testing, as it must not be trained on."""
    return split.get(path) != TEST, path


def _drop(pictures: Pictures, groups: list[list[str]], reason: str) -> None:
    """Use the first of each group alone."""
    leaks = 0
    for kept, *others in groups:
        for path in others:
            leaks += bool(pictures.split) and pictures.split[kept] != pictures.split[path]
            pictures.dropped.add(path)
            pictures.rejected.append((path, f"{reason} {kept}"))
            pictures.decided("dropped", path)
    if leaks:
        pictures.notes.append(f"in the folders of both splits: {_count(leaks)}, used for testing alone")


def _treat_copies(pictures: Pictures, source: Folder, files: list[SourceFile], options: IngestOptions) -> None:
    """Drop copies of pictures if asked to. Otherwise keep them in one split where the split is drawn."""
    drawn = not pictures.split and options.test_share > 0
    boxed = bool(pictures.split and options.boxes)  # whole pictures are compared as they are stored
    if not (drawn or boxed or options.drop_duplicates):
        return
    groups = [sorted(group, key=lambda path: _rank(path, pictures.split)) for group in same_content(source, files)]
    if options.drop_duplicates:
        _drop(pictures, groups, "duplicate: the same content as")
    elif boxed:
        leaks = sum(len({pictures.split[path] for path in group}) > 1 for group in groups)
        pictures.notes += [f"in the folders of both splits: {_count(leaks)}"] * (leaks > 0)
    else:
        # A content that most pictures have would leave next to nothing for one of the splits.
        _keep_together(pictures, [group for group in groups if len(group) <= max(2, len(files) // 2)], options)


def _keep_together(pictures: Pictures, groups: list[list[str]], options: IngestOptions) -> None:
    """Let the first of each group decide the split of all, where it is drawn."""
    for kept, *others in groups:
        pictures.original.update(dict.fromkeys(others, kept))
        for path in others:
            if split_of(path, options) != split_of(kept, options):
                pictures.decided("together", kept, path)


def _count(pictures: int) -> str:
    return f"{pictures} picture{'s' if pictures != 1 else ''}"
