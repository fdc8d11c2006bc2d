"""The device, number format and memory layout that the network runs with."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ConfigError
from ray_kplm.network.transfer import to_device
from ray_kplm.number_format import resolve_auto

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Names of devices; `cuda:1` names one of several GPUs."""


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of this process with a name; of None and `auto` a GPU if there is one: CUDA, then Apple's MPS.

    Raises:
        ConfigError: There is no such device here.
    """
    if name is None or name == "auto":
        found = [one for one, is_here in _HERE.items() if is_here()]
        return torch.device(found[0] if found else "cpu")
    kind = name.partition(":")[0]
    if kind not in DEVICES or kind == "auto" or not re.fullmatch(r"\w+(:\d+)?", name):
        raise ConfigError(f"device {name!r}: give one of {', '.join(DEVICES)}")
    if kind != "cpu" and not _HERE[kind]():
        raise ConfigError(
            f"device {name}: PyTorch finds none here; give auto or cpu, or install a build of PyTorch for this device"
        )
    return torch.device(name)


_HERE: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}


@dataclass(frozen=True)
class Placement:
    """The device, number format and memory layout of a network.

    Attributes:
        device: Where the network runs.
        autocast: Type of the forward pass; None: float32.
        channels_last: Whether tensors are stored channels last.
        compiled: Whether network and loss of a training are compiled.
    """

    device: torch.device
    autocast: torch.dtype | None
    channels_last: bool
    compiled: bool = False

    @classmethod
    def choose(cls, compute: ComputeConfig, device: torch.device) -> Placement:
        """Return the configured placement; `auto` values follow from the device and, on a CPU, from its features.

        MPS runs in float32.
        """
        compute = resolve_auto(compute, gpu=device.type == "cuda")
        bf16 = compute.precision == "bf16" and device.type != "mps"
        autocast = torch.bfloat16 if bf16 else None
        return cls(device, autocast, compute.channels_last == "yes", compute.compile == "yes")

    def move(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in the memory layout."""
        moved: nn.Module = network.to(self.device).to(memory_format=self._memory_format)  # type: ignore[call-overload]
        return moved

    def images(self, image_BSS3: NDArray[np.uint8] | Tensor) -> Tensor:
        """Return the network's input: float32 (B, 3, S, S) from 0 to 1, on the device.

        Args:
            image_BSS3: uint8 (B, S, S, 3); or a tensor on the device, float32 from 0 to 1.
        """
        if not isinstance(image_BSS3, Tensor):
            image_BSS3 = to_device(np.ascontiguousarray(image_BSS3), self.device).float() / 255
        return image_BSS3.permute(0, 3, 1, 2).contiguous(memory_format=self._memory_format)

    def precision(self) -> AbstractContextManager[None]:
        """Return the autocast context of the network's forward pass; losses and coordinates are float32 outside of it."""
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


class Autocast(nn.Module):
    """A network whose forward pass runs under the placement's autocast."""

    def __init__(self, network: nn.Module, placement: Placement) -> None:
        super().__init__()
        self._network, self._placement = network, placement

    def forward(self, image: Tensor) -> Any:
        """Return the network's output."""
        with self._placement.precision():
            return self._network(image)
