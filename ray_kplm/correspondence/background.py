"""Static background: places of the network's input that show the same picture in many images (thesis 7.1, point 4).

A place counts when keypoints with nearly the same descriptor lie within a pixel or two of it in many images, and hardly any
around it. The second condition keeps the points of aligned objects, such as faces cropped by their eyes: these look alike at
some distance from each other too, while marks of the background do not move.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ray_kplm.storage.file_content import load_arrays

RADIUS = 0.015
"""Keypoints within this distance, a share of the input's side, are at the same place: 1.5 pixels of 96."""
SURROUNDINGS = 0.045
"""Distance up to which keypoints with the same descriptor count as moved, share of the input's side."""
LIKENESS = 0.8
"""Least cosine of two descriptors that show the same."""
SUPPORT = 0.1
"""Share of the images that show the same at a place of the background.

Measured with SIFT: 0.26 and more at the best keypoint of each of ten marks; objects at a fixed place have keypoints above it
too (X-rays of heads), but fail by CONCENTRATION.
"""
WEAK_SUPPORT = 0.05
"""The same for further keypoints of a place, within NEIGHBOURHOOD of one with SUPPORT."""
CONCENTRATION = 0.8
"""Share of the images with the same descriptor in the SURROUNDINGS that have it within RADIUS.

Measured with SIFT: at least 0.97 at nine of ten keypoints of marks. Objects reach at most 0.45 (X-rays of heads) and
0.67 (X-rays that were aligned by their annotation); an even spread of places would have 0.11.
"""
NEIGHBOURHOOD = 0.06
"""Distance within which keypoints belong to one place, share of the input's side."""
MOST = 0.8
"""Where more than this share of all keypoints would be background, the images are alike as a whole: there is no background."""
_MIN_IMAGES = 5
"""Least number of other images that show the same."""


@dataclass(frozen=True)
class Background:
    """The static background of a category, by example keypoints.

    Attributes:
        xy: float64 (E, 2), positions in the network's input, shares of its side.
        descriptors: float32 (E, d), unit norm.
    """

    xy: NDArray[np.float64]
    descriptors: NDArray[np.float32]

    def shows(self, xy: NDArray[np.float64], descriptors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which keypoints show the background: at the place of an example, with its descriptor.

        A keypoint of an object in front of a mark has another descriptor and is kept.

        Args:
            xy: (N, 2), shares of the input's side.
            descriptors: (N, d), unit norm.

        Returns:
            (N,).
        """
        shown = np.zeros(len(xy), bool)
        if not len(xy):
            return shown
        for point, examples in enumerate(KDTree(self.xy).query_ball_point(xy, RADIUS)):
            if examples:
                shown[point] = (self.descriptors[examples] @ descriptors[point]).max() >= LIKENESS
        return shown

    def is_near(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions (N, 2), shares of the input's side, are within NEIGHBOURHOOD of an example: (N,)."""
        finite = np.isfinite(xy).all(axis=1)
        near = np.zeros(len(xy), bool)
        near[finite] = KDTree(self.xy).query(xy[finite])[0] <= NEIGHBOURHOOD
        return near

    def places(self) -> NDArray[np.float64]:
        """Return one position for each group of examples, share of the input's side: (P, 2)."""
        centres: list[NDArray[np.float64]] = []
        waiting = self.xy
        while len(waiting):
            inside = np.linalg.norm(waiting - waiting[0], axis=1) <= NEIGHBOURHOOD
            centres.append(waiting[inside].mean(axis=0))
            waiting = waiting[~inside]
        return np.array(centres).reshape(-1, 2)

    def to_bytes(self) -> bytes:
        """Return the background as the content of an npz file."""
        buffer = io.BytesIO()
        np.savez(buffer, xy=self.xy, descriptors=self.descriptors)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Background:
        """Return the background of `to_bytes`."""
        arrays = load_arrays(content)
        return cls(arrays["xy"], arrays["descriptors"])


def find_background(
    image: NDArray[np.int64], xy: NDArray[np.float64], descriptors: NDArray[np.float32]
) -> Background | None:
    """Find the static background among the keypoints of a sample of images.

    Args:
        image: (N,), the image of each keypoint, from 0, ascending.
        xy: (N, 2), its position in the network's input, share of the side.
        descriptors: (N, d), unit norm.

    Returns:
        The background; None where no place shows the same in enough images, or the images are alike as a whole.
    """
    if not len(image):
        return None
    images = int(image.max()) + 1
    here, around = _images_alike(image, xy, descriptors)
    still = (here >= _MIN_IMAGES) & (here >= CONCENTRATION * around)
    strong = still & (here >= SUPPORT * images)
    if not strong.any():
        return None
    chosen = still & (here >= WEAK_SUPPORT * images)
    chosen &= KDTree(xy[strong]).query(xy)[0] <= NEIGHBOURHOOD
    background = Background(xy[chosen], descriptors[chosen])
    return None if background.shows(xy, descriptors).mean() > MOST else background


def _images_alike(
    image: NDArray[np.int64], xy: NDArray[np.float64], descriptors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count for each keypoint the other images that show the same within RADIUS and within SURROUNDINGS: (N,) each."""
    here, around = np.zeros(len(xy), np.int64), np.zeros(len(xy), np.int64)
    for point, near in enumerate(KDTree(xy).query_ball_point(xy, SURROUNDINGS)):
        others = np.array(near)
        alike = others[(descriptors[others] @ descriptors[point] >= LIKENESS) & (image[others] != image[point])]
        distance = np.linalg.norm(xy[alike] - xy[point], axis=1)
        here[point] = len(np.unique(image[alike[distance <= RADIUS]]))
        around[point] = len(np.unique(image[alike]))
    return here, around
