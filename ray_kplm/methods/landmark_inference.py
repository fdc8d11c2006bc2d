"""From images to landmarks: all that a detector computes on the device, as one module that can be exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ray_kplm.methods.landmark_objective import mirrored_mean
from ray_kplm.methods.visibility import VisibilityModel, features, probabilities
from ray_kplm.network import heatmaps
from ray_kplm.schemas import NONE


class LandmarkInference(nn.Module):
    """A landmark network with the average over the mirror image, the decoding of the heatmaps, and the visibility."""

    def __init__(
        self, network: nn.Module, flip_map: Tensor, sigma: float, *, flip: bool, visibility: VisibilityModel | None
    ) -> None:
        """Wrap a network.

        Args:
            network: a `LandmarkNetwork`: images (B, 3, S, S) to heatmaps (B, K, h, w).
            flip_map: int64 (K,), mirror partners of the landmarks, or NONE.
            sigma: of the Gaussians that the channels were trained on, cells.
            flip: whether heatmaps are averaged with those of the mirror image.
            visibility: gives probabilities; None: they are NaN.
        """
        super().__init__()
        self.network, self.sigma = network, sigma
        self.flip = flip and bool((flip_map != NONE).any())  # a mirror image is of no use without partners
        self.flip_map = nn.Buffer(flip_map)
        self.weights: Tensor | None
        self.offset: Tensor | None
        self.register_buffer("weights", None if visibility is None else torch.from_numpy(visibility.weights))
        self.register_buffer("offset", None if visibility is None else torch.from_numpy(visibility.offset))

    def maps(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the heatmaps of images (0 to 1), BKhw, and those of the mirror images; None without `flip`."""
        own: Tensor = self.network(image_B3SS).float()
        if not self.flip:
            return own, None
        return own, self.network(image_B3SS.flip(-1)).float()

    def mean(self, own_BKhw: Tensor, mirrored_BKhw: Tensor | None) -> Tensor:
        """Return the heatmaps that are decoded: BKhw."""
        return own_BKhw if mirrored_BKhw is None else mirrored_mean(own_BKhw, mirrored_BKhw, self.flip_map)

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the landmarks in the heatmap frame BK2, the heights of their peaks BK, and their probabilities BK."""
        return self.decode(*self.maps(image_B3SS))

    def decode(self, own_BKhw: Tensor, mirrored_BKhw: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, of the heatmaps that `maps` returns."""
        xy, confidence = heatmaps.decode(self.mean(own_BKhw, mirrored_BKhw), self.sigma)
        if self.weights is None or self.offset is None:
            return xy, confidence, torch.full_like(confidence, torch.nan)
        found = self.features(own_BKhw, mirrored_BKhw)
        return xy, confidence, probabilities(found, self.weights, self.offset)

    def features(self, own_BKhw: Tensor, mirrored_BKhw: Tensor | None) -> Tensor:
        """Return what probabilities are computed from, `visibility.features`, of the heatmaps that `maps` returns: BKF."""
        back = None
        if mirrored_BKhw is not None:  # a landmark without a partner has no heatmap of the mirror image
            back = mirrored_BKhw.flip(-1)[:, self.flip_map.clamp(min=0)]
            back = torch.where((self.flip_map != NONE)[:, None, None], back, own_BKhw)
        return features(own_BKhw, back, self.mean(own_BKhw, mirrored_BKhw), self.sigma)
