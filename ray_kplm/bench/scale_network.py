"""What a network costs, counted without running it: operations of its layers, and launches of a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ray_kplm.config import Config
from ray_kplm.methods import build_method
from ray_kplm.network.hourglass import parameter_count


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network, for one image.

    Attributes:
        forward: Floating-point operations of a forward pass; a multiplication and an addition are two.
        train: The same of a forward and a backward pass.
        launches: Operations that a training step launches, for a batch of any size.
        parameters: Number of weights.
    """

    forward: float
    train: float
    launches: int
    parameters: int


def stage1_cost(config: Config) -> NetworkCost:
    """Return the cost of the network that the rounds train."""
    return network_cost(build_method(config).objective(1).network, config.network.image_size)


def stage2_cost(config: Config) -> NetworkCost:
    """Return the cost of the landmark detector."""
    make = build_method(config).landmark_objective(config.method.landmarks).network
    return network_cost(make, config.network.image_size)


def network_cost(make: Callable[[], nn.Module], size: int) -> NetworkCost:
    """Count the operations of convolutions and products on PyTorch's meta device, which computes nothing.

    The loss and the optimiser are left out: small, and fused.

    Args:
        make: Makes the network.
        size: Side of its input, pixels.
    """
    with torch.device("meta"):
        network = make()
        images = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as forward:
        network(images)
    with FlopCounterMode(display=False) as train, _Launches() as launches:
        _total(network(images)).backward()  # type: ignore[no-untyped-call]
    return NetworkCost(
        float(forward.get_total_flops()), float(train.get_total_flops()), launches.count, parameter_count(network)
    )


def _total(output: Any) -> Tensor:
    outputs = output if isinstance(output, tuple) else (output,)
    return torch.stack([values.sum() for values in outputs]).sum()


class _Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that are no views of memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))
