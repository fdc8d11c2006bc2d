"""Annotated points that can be no points: marks of missing ones, and points outside their picture.

Many tools write a point that is not annotated as (-1, -1) or (0, 0), or as a number far outside. A dataset says it by NaN. Such
marks are kept on storage as they came, and are not used as points; other points outside the picture are used, and counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_kplm.imaging.crops import crop_sizes

COLUMNS = ["width", "height", "box", "crop_to_source"]
"""The columns of schemas.IMAGES that `find_marks` reads."""
_EXACT = 0.01
"""Points this near (-1, -1) or (0, 0) are there, source pixels: coordinates are stored as float32 in the crop frame."""
_FAR = 1e5
"""No picture has so many pixels a side."""
_BORDER = 0.5
"""Points this far outside the picture's border are on it, source pixels: some tools count pixels from 1."""


class Marks(NamedTuple):
    """Which points of N images are doubtful.

    Attributes:
        missing: (N, L), marks of missing points.
        outside: (N, L), other points outside their picture. Of a crop by a box the right and the lower border of the picture
            are not known.
    """

    missing: NDArray[np.bool_]
    outside: NDArray[np.bool_]


class PointCounts(NamedTuple):
    """Numbers of annotated points, of marks of missing ones among them, and of other points outside their picture."""

    annotated: int = 0
    missing: int = 0
    outside: int = 0

    def plus(self, other: PointCounts) -> PointCounts:
        """Return the sums."""
        return PointCounts(*(mine + its for mine, its in zip(self, other, strict=True)))

    def lines(self) -> list[str]:
        """Return what a user is told, a line each; [] if no point is doubtful."""
        lines = []
        if self.missing:
            lines.append(
                f"{self.missing} of {self.annotated} landmarks are at (-1, -1), at (0, 0) or far outside their picture, as "
                f"tools mark missing points: they are not scored; NaN means not annotated"
            )
        if self.outside:
            lines.append(
                f"{self.outside} of {self.annotated} landmarks lie outside their picture: they are scored as they are; NaN "
                f"means not annotated"
            )
        return lines


def find_marks(landmarks: NDArray[np.floating], images: pa.Table) -> Marks:
    """Return which points of a part are doubtful.

    Args:
        landmarks: (N, L, 2), crop frame; NaN: not annotated.
        images: The images, with COLUMNS.
    """
    affines = pc.list_flatten(images["crop_to_source"]).to_numpy().reshape(-1, 2, 3)
    points = landmarks.astype(np.float64) @ affines[:, :, :2].transpose(0, 2, 1) + affines[:, None, :, 2]
    sizes = crop_sizes(images).astype(np.float64)[:, None, :]
    scale = np.abs(affines[:, [0, 1], [0, 1]])[:, None, :]
    picture = sizes * scale
    whole = (np.array(images["box"].is_null()) | (affines == np.eye(2, 3)).all(axis=(1, 2)))[:, None, None]
    side = picture.max(axis=2, keepdims=True)
    over = np.maximum(-_BORDER - points, np.where(whole, points - picture + _BORDER, -np.inf))
    with np.errstate(invalid="ignore"):
        exact = [(np.abs(points - place) < _EXACT).all(axis=2) for place in (-1.0, 0.0)]
        far = ((over > side) | (np.abs(points) > _FAR)).any(axis=2)
        outside = (over > _BORDER).any(axis=2)
    missing = exact[0] | exact[1] | far
    return Marks(missing, outside & ~missing)


def count_marks(landmarks: pa.Table | None, images: pa.Table) -> PointCounts:
    """Count the doubtful points of a part of a dataset; no landmarks: none."""
    if landmarks is None or not landmarks.num_rows:
        return PointCounts()
    flat = pc.list_flatten(pc.list_flatten(landmarks["landmarks"])).to_numpy()
    points = flat.reshape(landmarks.num_rows, -1, 2)
    missing, outside = find_marks(points, images)
    return PointCounts(int(np.isfinite(points).all(axis=2).sum()), int(missing.sum()), int(outside.sum()))
