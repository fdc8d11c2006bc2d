"""From the K landmarks of an image to L points: an affine map, if wanted with a local part, in a frame of the landmarks.

Coordinates are shares of the side of the network's input. `points.graph` is the same formula as tensor operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Frame = Literal["image", "similarity"]

SMALLEST = 1e-6
"""Least scale of the landmarks relative to the reference, with which a similarity frame is divided."""


def _no_rows() -> Floats:
    return np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class PointRegressor:
    """A map from landmarks (K, 2) to points (L, 2).

    In the frame `image` the landmarks are taken as they are, as in the thesis' forward regression (section 2.6). In the frame
    `similarity` they are moved, scaled and turned onto `reference` by least squares first, and the points are moved back: the
    map then needs no labels to learn where the object is, how large, and how it is turned.

    With x the landmarks in the frame, flattened to 2 K numbers, the points in the frame are
    `y_mean + (x - x_mean) @ weights + exp(-|x - support|^2 / (2 width^2)) @ local`.

    Attributes:
        x_mean: (2 K,).
        y_mean: (2 L,).
        weights: (2 K, 2 L).
        frame: `image` or `similarity`.
        reference: (K, 2), centred; of the frame `similarity`.
        support: (N, 2 K), landmarks of training images in the frame, about which `local` is known; N may be 0.
        local: (N, 2 L).
        width: Of the Gaussians about `support`.
    """

    x_mean: Floats
    y_mean: Floats
    weights: Floats
    frame: Frame = "image"
    reference: Floats = field(default_factory=_no_rows)
    support: Floats = field(default_factory=_no_rows)
    local: Floats = field(default_factory=_no_rows)
    width: float = 1.0

    @classmethod
    def of_groups(cls, groups: Sequence[Sequence[int]], landmarks: int) -> PointRegressor:
        """Return the map to the mean of each group of landmarks; a group of one is that landmark."""
        shares = group_shares(groups, landmarks).astype(np.float64)
        weights = np.asarray(np.kron(shares.T, np.eye(2)), np.float64)
        return cls(np.zeros(2 * landmarks), np.zeros(2 * len(groups)), weights)

    @property
    def landmarks(self) -> int:
        """K."""
        return len(self.x_mean) // 2

    @property
    def points(self) -> int:
        """L."""
        return len(self.y_mean) // 2

    def predict(self, xy: NDArray[np.floating[Any]]) -> Floats:
        """Return the points (B, L, 2) of landmarks (B, K, 2), both shares of the input's side; NaN if a landmark is NaN."""
        z, centre, scale = self.in_frame(xy)
        y = self.in_frame_points(z)
        return self.from_frame(y.reshape(len(y), -1, 2), centre, scale)

    def in_frame_points(self, z: Floats) -> Floats:
        """Return the points (B, 2 L) of landmarks (B, 2 K), both in the frame."""
        y: Floats = self.y_mean + (z - self.x_mean) @ self.weights
        if len(self.support):
            squared = ((z[:, None] - self.support) ** 2).sum(axis=-1)
            y = y + np.exp(-squared / (2 * self.width**2)) @ self.local
        return y

    def in_frame(self, xy: NDArray[np.floating[Any]]) -> tuple[Floats, NDArray[np.complex128], NDArray[np.complex128]]:
        """Return landmarks (B, 2 K) in the frame, and the centres (B,) and scales (B,) that lead back, as complex numbers.

        A point p of the frame is at `centre + scale * p` in the image, with x + iy for a point.
        """
        given: Floats = np.asarray(xy, np.float64)
        number = len(given)
        if self.frame == "image":
            return given.reshape(number, -1), np.zeros(number, np.complex128), np.ones(number, np.complex128)
        z, reference = _complex(given), _complex(self.reference)
        centre = z.mean(axis=1)
        scale = ((z - centre[:, None]) @ reference.conj()) / max(float((np.abs(reference) ** 2).sum()), SMALLEST)
        scale = np.where(np.abs(scale) < SMALLEST, SMALLEST, scale)
        return _real((z - centre[:, None]) / scale[:, None]).reshape(number, -1), centre, scale

    def to_frame(
        self, points: NDArray[np.floating[Any]], centre: NDArray[np.complex128], scale: NDArray[np.complex128]
    ) -> Floats:
        """Return points (B, L, 2) of the image in the frame of `in_frame`."""
        return _real((_complex(np.asarray(points, np.float64)) - centre[:, None]) / scale[:, None])

    def from_frame(self, points: Floats, centre: NDArray[np.complex128], scale: NDArray[np.complex128]) -> Floats:
        """Return points (B, L, 2) of the frame in the image."""
        if self.frame == "image":
            return points
        return _real(centre[:, None] + scale[:, None] * _complex(points))

    def to_dict(self) -> dict[str, Any]:
        """Return the regressor as plain values."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {"frame": self.frame, "width": self.width, **arrays}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> PointRegressor:
        """Return the regressor of a `to_dict`. Raises KeyError or ValueError if it is none."""
        arrays = {name: np.asarray(plain[name], np.float64) for name in _ARRAYS}
        for name in ("reference", "support", "local"):
            arrays[name] = arrays[name] if arrays[name].ndim == 2 else _no_rows()
        made = cls(**arrays, frame=plain["frame"], width=float(plain["width"]))
        if made.weights.shape != (len(made.x_mean), len(made.y_mean)) or made.frame not in ("image", "similarity"):
            raise ValueError(f"weights {made.weights.shape} for {len(made.x_mean)} inputs, {len(made.y_mean)} outputs")
        return made


_ARRAYS = ("x_mean", "y_mean", "weights", "reference", "support", "local")


def group_shares(groups: Sequence[Sequence[int]], landmarks: int) -> NDArray[np.float32]:
    """Return how much each landmark counts for the mean of each group: (groups, landmarks), rows sum to 1."""
    shares = np.zeros((len(groups), landmarks), np.float32)
    for row, group in zip(shares, groups, strict=True):
        row[list(group)] = 1 / len(group)
    return shares


def _complex(xy: Floats) -> NDArray[np.complex128]:
    return np.asarray(xy[..., 0] + 1j * xy[..., 1], np.complex128)


def _real(z: NDArray[np.complex128]) -> Floats:
    return np.stack([z.real, z.imag], axis=-1)
