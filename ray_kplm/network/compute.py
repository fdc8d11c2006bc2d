"""Where and in which number format the network runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_kplm.config import ComputeConfig, NetworkConfig

_WIDE_ENOUGH = 96
"""Width from which bf16 pays on a CPU with matrix units. One training step of 16 images at 128 px, 2 cores with AMX:
width 64 0.154 s in fp32 and 0.163 s in bf16, width 96 0.245 s and 0.167 s, width 128 0.336 s and 0.226 s."""


@dataclass(frozen=True)
class Placement:
    """A device, its autocast type (None: fp32) and its memory format."""

    device: torch.device
    autocast: torch.dtype | None
    channels_last: bool

    @classmethod
    def choose(cls, compute: ComputeConfig, network: NetworkConfig, device: torch.device) -> Placement:
        """The configured placement; `auto` decides by device, processor and width."""
        cuda = device.type == "cuda"
        match compute.precision:
            case "bf16":
                autocast = torch.bfloat16
            case "auto" if cuda or (network.width >= _WIDE_ENOUGH and _has_matrix_units()):
                autocast = torch.bfloat16
            case _:
                autocast = None
        channels_last = compute.channels_last == "yes" or (compute.channels_last == "auto" and cuda)
        return cls(device, autocast, channels_last)

    def move(self, network: nn.Module) -> nn.Module:
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(self.device, memory_format=memory)

    def images(self, image_BSS3: NDArray[np.uint8]) -> Tensor:
        """Pictures as the network takes them: uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in 0..1 on the device."""
        image = torch.from_numpy(np.ascontiguousarray(image_BSS3)).to(self.device, non_blocking=True)
        image = image.permute(0, 3, 1, 2).float() / 255
        return image.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def precision(self) -> AbstractContextManager[None]:
        """Autocast for the network's forward pass; losses and coordinates stay in float32 outside of it."""
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)


def _has_matrix_units() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX)."""
    return "amx_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as lines:
            return next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return ""
