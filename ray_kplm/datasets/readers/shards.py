"""Parquet files of a folder and their splits: train.parquet beside test.parquet, or shards of a data set as hubs have them.

The words of a path decide the split: `train-00000-of-00002.parquet`, `data/test-00000-of-00001.parquet`,
`default/validation/0000.parquet`. A validation split is the test split where there is no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ray_kplm.schemas import TEST, TRAIN

VALIDATION = "validation"
_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
}


def split_shards(paths: Iterable[str]) -> tuple[dict[str, str | None], list[str]]:
    """Return the split of each file, and what is said of the choice.

    Args:
        paths: Of the Parquet files, below the source.

    Returns:
        Path -> split, those of train first; None: of no split, so that it is drawn. If some files are of a split, the others
        are left out.
    """
    named = {path: split_word(path) for path in sorted(paths)}
    found = set(named.values()) - {None}
    if not found:
        return dict.fromkeys(named), []
    notes = []
    role = TRAIN if TEST in found else TEST
    if VALIDATION in found:
        held = "the files of test are" if TEST in found else "no file is of test"
        notes.append(f"files of validation are the {role} split, as {held}")
    others = [path for path, split in named.items() if split is None]
    if others:
        notes.append(f"{len(others)} Parquet files are of no split and left out, e.g. {others[0]}")
    files = {p: role if split == VALIDATION else split for p, split in named.items() if split is not None}
    if TRAIN not in files.values():
        return dict.fromkeys(files), [*notes, "no file is of train: the splits are drawn"]
    return dict(sorted(files.items(), key=lambda item: (item[1] != TRAIN, item[0]))), notes


def split_word(path: str) -> str | None:
    """Return the split that a path names, by the word nearest to its end; None if none does."""
    words = [word for word in re.split(r"[^a-z]+", path.lower().removesuffix(".parquet")) if word in _WORDS]
    return _WORDS[words[-1]] if words else None
