"""Where and in which number format the network runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_kplm.config import ComputeConfig


@dataclass(frozen=True)
class Placement:
    """A device, its autocast type (None: fp32) and its memory format."""

    device: torch.device
    autocast: torch.dtype | None
    channels_last: bool

    @classmethod
    def choose(cls, compute: ComputeConfig, device: torch.device) -> Placement:
        """The configured placement. `auto` takes bf16 on GPUs and on CPUs that multiply it, channels_last on GPUs only.

        One training step of 8 images at 128 px on one core, fp32 / bf16 / bf16 with channels_last: with AMX at width 64 0.135 /
        0.101 / 0.151 s, at width 128 - / 0.205 / 0.199 s; with AVX-512 bf16 alone at width 64 0.182 / 0.150 / 0.202 s. Group
        norm makes channels_last slow on the CPU.
        """
        cuda = device.type == "cuda"
        gains = cuda or _multiplies_bf16()
        bf16 = compute.precision == "bf16" or (compute.precision == "auto" and gains)
        channels_last = compute.channels_last == "yes" or (compute.channels_last == "auto" and cuda)
        return cls(device, torch.bfloat16 if bf16 else None, channels_last)

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


def _multiplies_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware: with matrix units (AMX) or vector units (AVX-512)."""
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(_cpu_flags())


def _cpu_flags() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as lines:
            return next((line for line in lines if line.startswith("flags")), "").split()
    except OSError:
        return []
