"""Copies of arrays to the training device, which the device's queue does not wait for."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device.

    A copy to CUDA starts from pinned memory. From other memory it would first wait for all that the stream has to do, and the
    process could not queue the next step meanwhile (CUDA Runtime API, "API synchronization behavior").
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
