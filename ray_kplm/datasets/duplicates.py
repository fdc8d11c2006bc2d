"""Files, and stored pictures, that are the same, byte for byte, by a digest of 16 bytes for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ray_kplm.datasets.source_files import SourceFile, map_paths, open_file, starts
from ray_kplm.storage import Folder

DIGEST_BYTES = 16
_START_BYTES = 4096
_CHUNK_BYTES = 1 << 20


class Repeat(NamedTuple):
    """A picture that an earlier one equals: the part of each, counted as given, and the row in it."""

    part: int
    row: int
    first_part: int
    first_row: int


def digests_of(pictures: Sequence[bytes]) -> bytes:
    """Return the digests of pictures, one after another."""
    return b"".join(map(_digest, pictures))


def find_repeats(parts: Sequence[bytes]) -> Iterator[Repeat]:
    """Yield the pictures that equal an earlier one, in order. It takes about 50 bytes of memory for a picture.

    Args:
        parts: The digests of each part's pictures, as `digests_of` returns them.
    """
    counts = [len(digests) // DIGEST_BYTES for digests in parts]
    ends = np.cumsum([0, *counts])
    halves = np.frombuffer(b"".join(parts), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal pictures stay in order
    ordered = halves[order]
    same = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)]) if len(order) else np.zeros(0, bool)
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    first = np.empty(len(order), np.int64)
    first[order] = order[starts]
    repeated = np.flatnonzero(first != np.arange(len(order)))
    for index in repeated.tolist():
        part, first_part = (int(np.searchsorted(ends, at, side="right")) - 1 for at in (index, first[index]))
        yield Repeat(part, index - int(ends[part]), first_part, int(first[index] - ends[first_part]))


def same_content(source: Folder, files: Iterable[SourceFile]) -> list[list[str]]:
    """Return the groups of paths whose files have the same bytes, each with two paths at least, in the order of `files`.

    Only files of equal size are opened, and read whole only if they also begin alike. A digest is held for each of
    them. Files that cannot be read are in no group.
    """
    by_size: dict[int, list[str]] = {}
    for file in files:
        if file.size:
            by_size.setdefault(file.size, []).append(file.path)
    suspects = [(size, paths) for size, paths in by_size.items() if len(paths) > 1]
    starting: dict[tuple[int, bytes], list[str]] = {}
    order = [(size, path) for size, paths in suspects for path in paths]
    for (size, path), start in zip(order, starts(source, (p for _, p in order), _START_BYTES), strict=True):
        if start:
            starting.setdefault((size, _digest(start)), []).append(path)
    groups = [paths for (size, _), paths in starting.items() if len(paths) > 1 and size <= _START_BYTES]
    longer = [
        (key, path) for key, paths in starting.items() if len(paths) > 1 and key[0] > _START_BYTES for path in paths
    ]
    whole: dict[tuple[tuple[int, bytes], bytes], list[str]] = {}
    for (key, path), digest in zip(
        longer, map_paths(lambda path: _file_digest(source, path), (p for _, p in longer)), strict=True
    ):
        if digest:
            whole.setdefault((key, digest), []).append(path)
    groups += [paths for paths in whole.values() if len(paths) > 1]
    return groups


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def _file_digest(source: Folder, path: str) -> bytes:
    """Return the digest of a file's content; b"" if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_file(source, path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return b""
    return digest.digest()[:DIGEST_BYTES]
