"""The length, one per image, by which errors are divided (thesis section 2.6).

Everything here is in one frame, crop pixels; N images, L annotated landmarks. NaN marks what is not known.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import DataError
from ray_kplm.evaluation.completion import observed_means

Floats = NDArray[np.float64]


def normaliser(definition: dict, landmarks: ArrayLike, boxes: ArrayLike) -> Floats:
    """The normaliser of every image, float64 (N,), crop pixels; NaN where it cannot be computed.

    definition: a dataset's `nme` entry; keys other than `type` and those of its type are not read:
        {"type": "interocular", "left": [...], "right": [...]}  distance of the means of two landmark sets
            (of the eyes, of the shoulders, ...)
        {"type": "torso", "pairs": [[a, b], [c, d]]}            mean distance of those pairs that are annotated, as
            left shoulder to right hip and right shoulder to left hip
        {"type": "bbox_sqrt"}                                   sqrt(width * height) of the box
        {"type": "fixed", "pixels": p}                          p for every image
    landmarks: (N, L, 2), NaN where not annotated.
    boxes: (N, 4), x0, y0, x1, y1, NaN where there is no box.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    kind = definition.get("type")
    match kind:
        case "interocular":
            lengths = _between_means(landmarks, _indices(definition, "left"), _indices(definition, "right"))
        case "torso":
            lengths = _mean_of_pairs(landmarks, definition)
        case "bbox_sqrt":
            lengths = _box_size(np.asarray(boxes, dtype=np.float64))
        case "fixed":
            lengths = np.full(len(landmarks), _pixels(definition))
        case _:
            raise DataError(
                f"nme type {kind!r}: must be interocular, torso, bbox_sqrt or fixed; "
                "correct `nme.type` in the dataset's description"
            )
    return np.where(lengths > 0, lengths, np.nan)


def _between_means(landmarks: Floats, left: list[int], right: list[int]) -> Floats:
    """(N, L, 2) -> (N,). One missing point makes it NaN: the mean of the others would be another length."""
    _check(landmarks, [*left, *right], "`nme.left` and `nme.right`")
    return np.linalg.norm(landmarks[:, left].mean(axis=1) - landmarks[:, right].mean(axis=1), axis=-1)


def _mean_of_pairs(landmarks: Floats, definition: dict) -> Floats:
    """(N, L, 2) -> (N,). Either pair is the length; a missing one does not make it another."""
    pairs = definition.get("pairs")
    if not pairs:
        raise DataError(f"nme.pairs {pairs!r}: torso needs pairs of landmark indices; list them in the description")
    first, second = np.asarray(pairs, dtype=np.intp).T
    _check(landmarks, [*first, *second], "`nme.pairs`")
    return observed_means(np.linalg.norm(landmarks[:, first] - landmarks[:, second], axis=-1).T)


def _check(landmarks: Floats, indices: list[int], where: str) -> None:
    count = landmarks.shape[1]
    outside = [index for index in indices if not 0 <= index < count]
    if outside:
        raise DataError(
            f"nme landmark index {outside[0]}: must be from 0 to {count - 1}; "
            f"correct {where} in the dataset's description"
        )


def _box_size(boxes: Floats) -> Floats:
    """(N, 4) -> (N,), NaN for a box without area; both sides are clipped, or two negative ones would pass."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.sqrt(sides.prod(axis=1))


def _indices(definition: dict, key: str) -> list[int]:
    indices = definition.get(key)
    if not indices:
        raise DataError(f"nme.{key} {indices!r}: interocular needs landmark indices; list them in the description")
    return list(indices)


def _pixels(definition: dict) -> float:
    pixels = definition.get("pixels")
    if not isinstance(pixels, int | float) or not pixels > 0:
        raise DataError(f"nme.pixels {pixels!r}: fixed needs a positive number; set it in the dataset's description")
    return float(pixels)
