"""Where and in which number format the network runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_kplm.config import ComputeConfig
from ray_kplm.number_format import resolve_auto


@dataclass(frozen=True)
class Placement:
    """A device, its autocast type (None: fp32) and its memory format."""

    device: torch.device
    autocast: torch.dtype | None
    channels_last: bool

    @classmethod
    def choose(cls, compute: ComputeConfig, device: torch.device) -> Placement:
        """Return the configured placement; `auto` depends on the device and, on a CPU, on that of this machine."""
        compute = resolve_auto(compute, gpu=device.type == "cuda")
        return cls(device, torch.bfloat16 if compute.precision == "bf16" else None, compute.channels_last == "yes")

    def move(self, network: nn.Module) -> nn.Module:
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(self.device).to(memory_format=memory)  # type: ignore[call-overload]

    def images(self, image_BSS3: NDArray[np.uint8]) -> Tensor:
        """Pictures as the network takes them: uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in 0..1 on the device."""
        image = torch.from_numpy(np.ascontiguousarray(image_BSS3)).to(self.device, non_blocking=True)
        image = image.permute(0, 3, 1, 2).float() / 255
        return image.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def precision(self) -> AbstractContextManager[None]:
        """Autocast for the network's forward pass; losses and coordinates stay in float32 outside of it."""
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)
