"""Splits by the names of folders and files. Words decide, not letters: `restrained_mice_val` is a val split."""

from __future__ import annotations

import re
from collections.abc import Collection

from ray_kplm.schemas import TEST, TRAIN

VAL = "val"

_WORDS = {
    TRAIN: {"train", "training", "trainset", "trainval", "traindata"},
    VAL: {"val", "valid", "validation", "valset", "minival", "valminusminival", "eval", "evaluation"},
    TEST: {"test", "testing", "testset", "testdata"},
}
_FILLERS = {"data", "frames", "image", "images", "img", "imgs", "photos", "pictures", "set", "split"}


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: `person_keypointsTrain2017` has person, keypoints, train."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]


def roles_in(name: str) -> set[str]:
    """Return which of train, val and test the words of a name say."""
    words = set(words_of(name))
    return {role for role, names in _WORDS.items() if names & words}


def role_of_folder(name: str) -> str | None:
    """Return which of train, val and test a folder's whole name says: `train2017`, `Test images`; None for `train stations`."""
    words = set(words_of(name)) - _FILLERS
    named = roles_in(name)
    return named.pop() if len(named) == 1 and len(words) == 1 else None


def role_of_path(path: str) -> str | None:
    """Return what the first folder of a path whose name says a split says, or None."""
    return next((role for folder in path.split("/")[:-1] if (role := role_of_folder(folder))), None)


def split_of_role(role: str, roles: Collection[str]) -> str:
    """Return the split that a role belongs to: val is for testing, unless `roles` has a test split; then it is trained on."""
    if role != VAL:
        return role
    return TRAIN if TEST in roles else TEST


def are_splits(roles: Collection[str]) -> bool:
    """Return whether these roles are splits: something to train on and something to test on."""
    return {split_of_role(role, roles) for role in roles} == {TRAIN, TEST}
