"""The views of a batch, made by PyTorch on any device, with one resampling.

`imaging.augment` makes the same views on a CPU and rounds to whole grey levels after each transform. Here values stay float32
and are not rounded. The device is never waited for: shapes do not depend on the random numbers, and the numbers are copied
to it in one piece.

Letters of shapes: B views, S pixels a side, N nodes along a side of a warp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ray_kplm.config import AugmentConfig
from ray_kplm.imaging.coordinates import compose, invert
from ray_kplm.imaging.photometry import GREY, NOISE_SCALE, NOISE_VALUES, NOISE_ZERO, blur_reach, noise_steps
from ray_kplm.imaging.view_parameters import WARP_NODES, ViewParameters, draw_views
from ray_kplm.imaging.warp import IDENTITY_SHIFT, node_basis, point_shifts
from ray_kplm.methods.prefetch import Columns
from ray_kplm.network.transfer import to_device

_CORNERS = (5 / 6, 3 / 6, 1 / 6)
"""Where red, green and blue stand on the circle of hues, for the way back from hue, chroma and value."""
_LEAST_CHROMA = 1e-6
_HUE_STEPS = 256
"""Steps of the circle of hues on a CPU."""
_INPUTS = ("crop_to_input", "input_to_picture", "seed")
"""Columns that the views of a batch have no more."""


def can_make(augment: AugmentConfig, moving: bool) -> bool:
    """Return whether all that the configuration asks of views can be done here.

    Args:
        augment: Ranges of the transforms. Those of `extra` run on CPUs alone.
        moving: Whether some views show another frame than the one that is labelled: optical flow, too, runs on CPUs alone.
    """
    return not moving and not augment.extra


class DeviceViews:
    """Makes views of inputs on a device. An input and its parameters give the same view in any batch."""

    def __init__(self, augment: AugmentConfig, size: int, device: torch.device) -> None:
        """Put on the device what all batches share.

        Args:
            augment: Ranges of the transforms.
            size: Side S of the views, pixels.
            device: Where views are made.
        """
        self.augment, self.size, self.device = augment, size, device
        steps = noise_steps(3 * size**2, per_channel=True).astype(np.float32)
        noise = torch.from_numpy((steps - NOISE_ZERO) / NOISE_SCALE).to(device)
        self._noise = noise.unfold(0, 3 * size**2, 1)  # a row for each place to start at, all in the same memory
        self._luma = torch.tensor(GREY, dtype=torch.float32, device=device)[:, None, None]
        self._corners = torch.tensor(_CORNERS, device=device)[:, None, None]
        self._cubic = torch.from_numpy(node_basis(np.arange(size), size)).to(device)
        at = torch.arange(size, dtype=torch.float32, device=device)
        self._places = torch.stack(torch.meshgrid(at, at, indexing="xy"))  # (2, S, S): x, y

    @torch.no_grad()
    def __call__(self, batch: Columns) -> Columns:
        """Return the views of a batch, as the columns of `Views`: pictures on the device, the maps of points as arrays.

        Args:
            batch: columns of `imaging.augment.Inputs`, with `seed`, `flip` and others, which are kept; or of `Views`, whose
                pictures are copied to the device.
        """
        if "seed" not in batch:
            return batch | {"picture": self._copied(batch["picture"])}
        kept = {name: values for name, values in batch.items() if name not in _INPUTS}
        parameters = draw_views(self.augment, batch["seed"], batch["flip"])
        picture = self.pictures(batch["picture"], parameters, batch["input_to_picture"])
        crop_to_view = compose(parameters.input_to_view(self.size), batch["crop_to_input"]).astype(np.float32)
        shifts = self._shifts(parameters)
        return kept | {"picture": picture, "crop_to_view": crop_to_view, "shifts": shifts}

    @torch.no_grad()
    def pictures(
        self, picture_BSS3: NDArray[np.uint8], parameters: ViewParameters, input_to_picture: NDArray[np.float64]
    ) -> Tensor:
        """Return the views: float32 (B, S, S, 3) from 0 to 1, on the device.

        Args:
            picture_BSS3: Pictures of the crops, whose borders are repeated beyond them.
            parameters: Of the views.
            input_to_picture: (B, 2, 3), maps of the input's points to the pictures.
        """
        column = self._numbers(parameters, input_to_picture)
        view = self._copied(picture_BSS3).permute(0, 3, 1, 2)
        view = self._resampled(view, column["map"].view(-1, 2, 3), column["nodes"])
        view = self._lit(view, column["brightness"], column["contrast"])
        if self.augment.colour_share:
            view = self._coloured(view, column["saturation"], column["hue"])
        if "blur" in column:
            view = _blurred(view, column["blur"])
        if self.augment.noise_share and self.augment.noise:
            view = self._noisy(view, column["noise"], column["per_channel"], column["noise_start"])
        return view.permute(0, 2, 3, 1).contiguous()

    def _shifts(self, parameters: ViewParameters) -> NDArray[np.float32]:
        """Return how the warps move points, (B, G, G, 2), pixels."""
        if self.augment.warp:
            return point_shifts(parameters.warp * self.size, self.size)
        return np.tile(IDENTITY_SHIFT, (len(parameters), 1, 1, 1))

    def _copied(self, picture_BSS3: NDArray[np.uint8]) -> Tensor:
        """Return pictures on the device, float32 from 0 to 1."""
        return to_device(picture_BSS3, self.device).float() / 255

    def _numbers(self, parameters: ViewParameters, input_to_picture: NDArray[np.float64]) -> dict[str, Tensor]:
        """Return what the transforms need, on the device, each (B, n), from one copy."""
        size, count = self.size, len(parameters)
        view_to_picture = compose(input_to_picture, invert(parameters.input_to_view(size)))
        columns: dict[str, NDArray[Any]] = {
            "map": _normalised(view_to_picture, size).reshape(count, 6),
            "nodes": parameters.warp.transpose(0, 3, 1, 2).reshape(count, -1) * size,
            "brightness": parameters.brightness[:, None],
            "contrast": parameters.contrast[:, None],
            "saturation": parameters.saturation[:, None],
            "hue": np.rint(_HUE_STEPS * parameters.hue)[:, None] / _HUE_STEPS,
            "noise": parameters.noise[:, None],
            "per_channel": parameters.noise_per_channel[:, None],
            "noise_start": (parameters.noise_seed % NOISE_VALUES)[:, None],
        }
        if self.augment.blur_share and self.augment.blur:
            columns["blur"] = _blur_weights(parameters.blur, min(int(blur_reach(self.augment.blur)), size - 1))
        packed = np.concatenate(list(columns.values()), axis=1).astype(np.float32)  # exact for noise_start: below 2**24
        widths = [values.shape[1] for values in columns.values()]
        return dict(zip(columns, torch.split(to_device(packed, self.device), widths, dim=1), strict=True))

    def _resampled(self, input_B3SS: Tensor, view_to_input: Tensor, nodes: Tensor) -> Tensor:
        """Sample the inputs bilinearly at the sources of the views' pixels, with replicated borders."""
        places = self._places
        if self.augment.warp:
            coarse = nodes.view(-1, 2, WARP_NODES, WARP_NODES)
            places = places + self._cubic @ coarse @ self._cubic.T
        x, y = places[..., 0, :, :], places[..., 1, :, :]
        a = view_to_input[..., None, None]
        grid = torch.stack([a[:, i, 0] * x + a[:, i, 1] * y + a[:, i, 2] for i in (0, 1)], dim=-1)
        return F.grid_sample(input_B3SS, grid, mode="bilinear", padding_mode="border", align_corners=True)

    def _lit(self, view: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
        """Multiply all values, then their distance from the mean grey."""
        view = (view * brightness[..., None, None]).clamp_(0, 1)
        factor, grey = contrast[..., None, None], self._grey(view).mean((2, 3), keepdim=True)
        return torch.lerp(grey, view, factor).clamp_(0, 1)

    def _coloured(self, view: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
        """Multiply the distance from grey, and turn the hue."""
        view = torch.lerp(self._grey(view), view, saturation[..., None, None]).clamp_(0, 1)
        red, green, blue = view.unbind(1)
        value, place = view.max(dim=1)
        chroma = value - view.amin(dim=1)
        ahead = torch.stack([green - blue, blue - red, red - green], dim=1).gather(1, place[:, None])
        sixths = ahead / chroma[:, None].clamp(min=_LEAST_CHROMA) + 2 * place[:, None]
        turned = sixths / 6 + hue[..., None, None] + self._corners
        turned = (turned - turned.floor()) * 6
        return value[:, None] - chroma[:, None] * torch.minimum(turned, 4 - turned).clamp_(0, 1)

    def _noisy(self, view: Tensor, deviation: Tensor, per_channel: Tensor, start: Tensor) -> Tensor:
        """Add noise, of each channel its own or the same to all three."""
        values = self._noise.index_select(0, start[:, 0].long())
        own = values.view(-1, self.size, self.size, 3).permute(0, 3, 1, 2)
        shared = values[:, : self.size**2].view(-1, 1, self.size, self.size)
        noise = torch.where(per_channel[..., None, None] > 0, own, shared)
        return torch.addcmul(view, noise, deviation[..., None, None]).clamp_(0, 1)

    def _grey(self, view: Tensor) -> Tensor:
        """Return the grey values (B, 1, S, S)."""
        return (view * self._luma).sum(1, keepdim=True)


def _normalised(to_input: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return maps (B, 2, 3) to pixels as maps to the coordinates of `grid_sample`: -1 and 1 at the outer pixels' centres."""
    normalised = to_input * (2 / (size - 1))
    normalised[:, :, 2] -= 1
    return normalised


def _blur_weights(sigma: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return half of each view's Gaussian, (B, R + 1): of the centre and of the pixels at distances of 1 to R."""
    distance = np.arange(reach + 1)
    weights = np.exp(-0.5 * (distance / np.maximum(sigma, 1e-6)[:, None]) ** 2)
    weights *= distance <= blur_reach(sigma)[:, None]
    halves: NDArray[np.float64] = weights / (2 * weights.sum(1, keepdims=True) - 1)  # the centre counts once
    return halves


def _blurred(view: Tensor, weights: Tensor) -> Tensor:
    """Convolve each view with its kernel along both axes; the border mirrors the picture without its outer pixel.

    Args:
        view: (B, 3, S, S).
        weights: (B, R + 1), of the centre and of the pixels at the distances 1 to R.
    """
    radius = weights.shape[1] - 1
    weight = weights[..., None, None, None]
    for axis in (2, 3):
        side = view.shape[axis]
        padding = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
        padded = F.pad(view, padding, mode="reflect")
        view = view * weight[:, 0]
        for r in range(1, radius + 1):
            both = padded.narrow(axis, radius - r, side) + padded.narrow(axis, radius + r, side)
            view = torch.addcmul(view, both, weight[:, r])
    return view
