"""Group normalisation of images that are stored channels last on CUDA, without a copy to another layout or format.

PyTorch 2.13's group norm on CUDA copies such images to channels first, and autocast copies them to float32 before.

Axes in names: B images, C channels, G groups, c = C / G channels of a group, h = w side.
Source: Wu & He, ECCV 2018.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that keeps the layout and the number format of channels-last images on CUDA.

    Elsewhere it is `nn.GroupNorm`, bit for bit. Its parameters are the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map BChw to BChw."""
        if not (x.is_cuda and x.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(x)
        return group_norm_channels_last(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm_channels_last(x_BChw: Tensor, groups: int, weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
    """Return the group norm of images in their own layout and number format.

    Means and variances are float32, or float64 for float64 images. Normalisation and affine map are one multiply-add.
    """
    with torch.autocast(x_BChw.device.type, enabled=False):
        output: Tensor = _Normalise.apply(x_BChw, groups, weight_C, bias_C, eps)  # type: ignore[no-untyped-call]
        return output


class _Normalise(torch.autograd.Function):
    """The norm and its gradient, both of which read the images in place."""

    @staticmethod
    def forward(ctx: Any, x_BChw: Tensor, groups: int, weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
        x_BGchw = torch.unflatten(x_BChw, 1, (groups, -1))  # a view in every layout
        size, statistics = x_BGchw[0, 0].numel(), torch.promote_types(x_BChw.dtype, torch.float32)
        mean_BG1 = x_BGchw.mean((2, 3, 4), dtype=statistics)[:, :, None]
        length_BG1 = torch.linalg.vector_norm(x_BGchw, dim=(2, 3, 4), dtype=statistics)[:, :, None]
        variance_BG1 = torch.addcmul(length_BG1.square() / size, mean_BG1, mean_BG1, value=-1)
        inverse_BG1 = (variance_BG1.clamp(min=0) + eps).rsqrt()
        scale_BGc = inverse_BG1 * weight_C.view(groups, -1)
        shift_BGc = torch.addcmul(bias_C.view(groups, -1), mean_BG1, scale_BGc, value=-1)
        ctx.save_for_backward(x_BChw, weight_C, mean_BG1, inverse_BG1, scale_BGc)
        return torch.addcmul(_per_channel(shift_BGc, x_BChw), x_BChw, _per_channel(scale_BGc, x_BChw))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BChw: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        x_BChw, weight_C, mean_BG1, inverse_BG1, scale_BGc = ctx.saved_tensors
        groups, size = mean_BG1.shape[1], x_BChw[0].numel() // mean_BG1.shape[1]
        sum_BGc = grad_BChw.sum((2, 3), dtype=mean_BG1.dtype).view_as(scale_BGc)
        product_BGc = (grad_BChw * x_BChw).sum((2, 3), dtype=mean_BG1.dtype).view_as(scale_BGc)
        # The output is (x - mean) inverse weight + bias; `mean` and `inverse` depend on all of the group's x.
        centred_BGc = torch.addcmul(product_BGc, sum_BGc, mean_BG1, value=-1) * inverse_BG1
        weight_Gc = weight_C.view(groups, -1)
        slope_BG1 = (centred_BGc * weight_Gc).sum(2, keepdim=True) * inverse_BG1.square() / -size
        level_BG1 = (sum_BGc * scale_BGc).sum(2, keepdim=True) / -size - slope_BG1 * mean_BG1
        constant_BChw = _per_channel(level_BG1.expand_as(scale_BGc), x_BChw)
        slope_BChw = _per_channel(slope_BG1.expand_as(scale_BGc), x_BChw)
        grad_x = torch.addcmul(constant_BChw, x_BChw, slope_BChw).addcmul_(grad_BChw, _per_channel(scale_BGc, x_BChw))
        return (
            grad_x,
            None,
            centred_BGc.sum(0).flatten().to(weight_C.dtype),
            sum_BGc.sum(0).flatten().to(weight_C.dtype),
            None,
        )


def _per_channel(value_BGc: Tensor, x_BChw: Tensor) -> Tensor:
    """Return BC11 in the number format of the images."""
    return value_BGc.flatten(1)[:, :, None, None].to(x_BChw.dtype)
