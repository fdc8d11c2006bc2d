"""The length, one for each image, by which errors are divided (thesis section 2.6).

All coordinates are in one frame, crop pixels; N images, L annotated landmarks. NaN marks what is not known.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import DataError
from ray_kplm.evaluation.completion import observed_means

Floats = NDArray[np.float64]


def normaliser(definition: Mapping[str, Any], landmarks: ArrayLike, boxes: ArrayLike) -> Floats:
    """Return the normaliser of every image.

    Args:
        definition: The `nme` entry of a dataset's description, one of

            - `{"type": "interocular", "left": [...], "right": [...]}`: the distance between the means of two sets of
              landmarks, of the eyes or the shoulders, for example;
            - `{"type": "torso", "pairs": [[a, b], [c, d]]}`: the mean distance of those pairs that are annotated, such as
              left shoulder to right hip and right shoulder to left hip;
            - `{"type": "bbox_sqrt"}`: the square root of the box's area;
            - `{"type": "fixed", "pixels": p}`: p for every image.

            Other keys are ignored.
        landmarks: (N, L, 2), NaN where not annotated.
        boxes: (N, 4), x0, y0, x1, y1; NaN where there is no box.

    Returns:
        (N,), crop pixels, NaN where the length is unknown or not positive.

    Raises:
        DataError: The definition has another type, misses a key or names a landmark that does not exist.
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
    """Return the distance (N,) between the means of two sets of landmarks.

    One missing landmark makes it NaN, as the mean of the others is another length.
    """
    _check(landmarks, [*left, *right], "`nme.left` and `nme.right`")
    between = landmarks[:, left].mean(axis=1) - landmarks[:, right].mean(axis=1)
    return np.asarray(np.linalg.norm(between, axis=-1), np.float64)


def _mean_of_pairs(landmarks: Floats, definition: Mapping[str, Any]) -> Floats:
    """Return the mean length (N,) of the annotated pairs: each pair alone measures the same length."""
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
    """Return the square root of the area (N,) of boxes (N, 4), 0 for a box with a negative side."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)  # both sides: the product of two negative ones is positive
    return np.asarray(np.sqrt(sides.prod(axis=1)), np.float64)


def _indices(definition: Mapping[str, Any], key: str) -> list[int]:
    indices = definition.get(key)
    if not indices:
        raise DataError(f"nme.{key} {indices!r}: interocular needs landmark indices; list them in the description")
    return list(indices)


def _pixels(definition: Mapping[str, Any]) -> float:
    pixels = definition.get("pixels")
    if not isinstance(pixels, int | float) or not pixels > 0:
        raise DataError(f"nme.pixels {pixels!r}: fixed needs a positive number; set it in the dataset's description")
    return float(pixels)
