"""The description of a data set, `dataset.json`: name, landmark names, mirror pairs, normaliser, licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray_kplm.errors import DataError
from ray_kplm.storage import Folder

NAME = "dataset.json"


def read_description(folder: Folder) -> dict[str, Any]:
    """Return the content of a folder's dataset.json; {} if there is none.

    Raises:
        DataError: It is no JSON, or a value in it has a wrong type.
    """
    if not folder.is_file(NAME):
        return {}
    content = folder.read_bytes(NAME)
    try:
        meta = json.loads(content)
    except (ValueError, RecursionError) as error:  # also of text that is no UTF-8
        raise DataError(f"{folder}/{NAME}: is no JSON ({error}); correct it, or leave it out") from None
    return check_description(meta, f"{folder}/{NAME}")


def check_description(meta: Any, where: str) -> dict[str, Any]:
    """Return a description whose values have the right types.

    Args:
        meta: The content of a dataset.json. Keys without a meaning may hold anything.
        where: The file, for errors.

    Raises:
        DataError: A value has a wrong type.
    """
    if not isinstance(meta, Mapping):
        raise DataError(f"{where}: must hold an object with keys such as name, is a {type(meta).__name__}")
    rules = {
        "name": ("text", _is_text),
        "licence": ("text", _is_text),
        "landmark_names": ("a list of text", _is_names),
        "swap_pairs": ("a list of pairs of landmarks' numbers, as [[0, 1]]", _is_pairs),
        "nme": ('an object with a type, as {"type": "bbox_sqrt"}', _is_normaliser),
    }
    for key, (wanted, holds) in rules.items():
        if meta.get(key) is not None and not holds(meta[key]):
            raise DataError(f"{where}: {key} must be {wanted}, is {str(meta[key])[:80]!r}")
    return dict(meta)


def landmark_description(meta: Mapping[str, Any], landmarks: int, where: str, name: str) -> dict[str, Any]:
    """Return what a dataset keeps of a source's description, with defaults for what it lacks.

    Args:
        meta: The source's description.
        landmarks: L, annotated landmarks of each image; 0: none.
        where: Its file, for errors.
        name: The data set's name if the description has none.

    Raises:
        DataError: The description is of another number of landmarks.
    """
    names = meta.get("landmark_names") or [f"landmark_{i}" for i in range(landmarks)]
    if landmarks and len(names) != landmarks:
        raise DataError(f"{where}: {len(names)} landmark_names, but images have {landmarks} landmarks")
    pairs = meta.get("swap_pairs") or []
    outside = [index for pair in pairs for index in pair if landmarks and not 0 <= index < landmarks]
    if outside:
        raise DataError(f"{where}: swap_pairs names landmark {outside[0]}, but images have {landmarks}, from 0 on")
    return {
        "name": meta.get("name") or name,
        "landmark_names": names,
        "swap_pairs": pairs,
        "nme": meta.get("nme") or {},
        "licence": meta.get("licence") or "",
    }


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(index) is int for index in pair) for pair in value
    )


def _is_normaliser(value: Any) -> bool:
    return isinstance(value, Mapping) and (not value or isinstance(value.get("type"), str))
