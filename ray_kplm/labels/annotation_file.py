"""What a file of annotations says, before its images are looked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AnnotatedObject:
    """The points of one object.

    Attributes:
        image: The image as the file names it.
        xy: float64 (L, 2), NaN where not annotated: source pixels with pixel centres at integers, or shares of the picture's
            width and height from its border.
        visible: bool (L,).
        box: x0, y0, x1, y1 in the unit of `xy`; NaN where the file says none.
        size: Width and height of the picture that was annotated, pixels; None if the file does not say.
        is_share: Whether `xy` and `box` are shares.
        other_names: Further names that the image may have.
    """

    image: str
    xy: NDArray[np.float64]
    visible: NDArray[np.bool_]
    box: tuple[float, float, float, float] = (np.nan,) * 4
    size: tuple[int, int] | None = None
    is_share: bool = False
    other_names: tuple[str, ...] = ()

    def in_pixels(self, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return points (L, 2) and box (4,) in pixels of a picture of this size, with pixel centres at integers."""
        box = np.asarray(self.box, np.float64)
        if not self.is_share:
            return self.xy, box
        size = np.array([width, height], np.float64)
        return self.xy * size - 0.5, box * np.tile(size, 2) - 0.5


@dataclass
class AnnotationFile:
    """All that a file says.

    Attributes:
        names: Of the points, L.
        objects: In the order of the file.
        skeleton: Pairs of points that the file joins, indices from 0.
        rejected: What cannot be used, with the reason.
        notes: What is left out without being wrong, a line each.
    """

    names: tuple[str, ...]
    objects: list[AnnotatedObject] = field(default_factory=list)
    skeleton: tuple[tuple[int, int], ...] = ()
    rejected: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
