"""One resampling from a picture to its view, for the affine map and the smooth warp together.

The map of a view's places to the picture is a sum of products of a function of y and a function of x: those of the warp's
nodes, the place itself, and 1. So the maps of a batch are two matrix products, and an affine map that follows changes the first
factor alone. Remapping with fixed-point maps takes two thirds of the time of `cv2.warpAffine` or of remapping with floats
(OpenCV 5.0). Places beyond the border, which OpenCV samples one by one, are moved to the border before.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.view_parameters import WARP_NODES
from ray_kplm.imaging.warp import node_basis, spread

Floats = NDArray[np.float32]


class Resampler:
    """Makes views of side S."""

    def __init__(self, size: int, *, warped: bool) -> None:
        """Compute the functions of which maps are made.

        Args:
            size: Side S of the views, pixels.
            warped: Whether there is a smooth warp.
        """
        at = np.arange(size)
        own = np.stack([at, np.ones(size)], axis=1).astype(np.float32)
        self._basis = np.concatenate([node_basis(at, size), own], axis=1) if warped else own
        self._size, self._warped = size, warped
        self._map = np.empty((size, 2 * size), np.float32)
        self._whole = np.empty((size, size, 2), np.int16)
        self._fraction = np.empty((size, size), np.uint16)

    def maps(self, view_to_input: NDArray[np.float64], nodes: NDArray[np.float64]) -> Floats:
        """Return the maps of places of B views to the input, in the form that `resample` takes.

        Args:
            view_to_input: (B, 2, 3), after the warp.
            nodes: (B, WARP_NODES, WARP_NODES, 2), shifts of the warp's nodes, pixels; not used without a warp.

        Returns:
            (B, K, S, 2), the functions of x that belong to the K functions of y.
        """
        linear, offset = view_to_input[:, :, :2], view_to_input[:, :, 2]
        k = self._basis.shape[1]
        factors = np.zeros((len(view_to_input), k, k, 2), np.float32)
        if self._warped:
            factors[:, :WARP_NODES, :WARP_NODES] = np.matmul(nodes, linear.transpose(0, 2, 1)[:, None])
        factors[:, -1, -2], factors[:, -2, -1], factors[:, -1, -1] = linear[:, :, 0], linear[:, :, 1], offset
        return spread(factors, self._basis)

    def resample(
        self,
        picture: NDArray[np.uint8],
        view_map: Floats,
        out: NDArray[np.uint8],
        then: coordinates.Affine | None = None,
    ) -> None:
        """Fill a view from a picture, bilinearly; the picture's border is repeated beyond it.

        Args:
            picture: (H, W, C).
            view_map: (K, S, 2), see `maps`.
            out: (S, S, C), the view, contiguous.
            then: The map (2, 3) of the input's points to the picture, if it is another one.
        """
        if then is not None:
            view_map = view_map @ then[:, :2].T.astype(np.float32)
            view_map[-1] += then[:, 2].astype(np.float32)
        np.matmul(self._basis, view_map.reshape(len(view_map), -1), out=self._map)
        self._keep_inside(picture.shape[1], picture.shape[0])
        places: NDArray[Any] = self._map.reshape(self._size, self._size, 2)
        cv2.convertMaps(places, None, cv2.CV_16SC2, self._whole, self._fraction)
        cv2.remap(picture, self._whole, self._fraction, cv2.INTER_LINEAR, out, cv2.BORDER_REPLICATE)

    def _keep_inside(self, width: int, height: int) -> None:
        """Move places beyond the border of a picture to the border.

        OpenCV interpolates in 32nds of a pixel, and fast where both neighbours exist.
        """
        last = max(width - 1 - 1 / 32, 0), max(height - 1 - 1 / 32, 0)
        if width == height:
            np.clip(self._map, 0, last[0], out=self._map)  # a third of the time of what follows
        else:
            np.minimum(self._map, np.tile(np.array(last, np.float32), self._size), out=self._map)
            np.maximum(self._map, 0, out=self._map)
