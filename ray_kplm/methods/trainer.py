"""One process's share of training: network, optimiser, and the step. Knows nothing of where batches come from."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ray_kplm.methods.batch import Points, Views
from ray_kplm.methods.labels import Labels
from ray_kplm.network.compute import Placement

NETWORK = "network.pt"
"""A stored state (weights and optimiser) in the folder of the step that trained it."""


class Objective(Protocol):
    """What a training step minimises. Picklable; holds no weights."""

    def network(self) -> nn.Module: ...

    def parameter_groups(self, network: nn.Module) -> list[dict]: ...

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


_COSINE_END = 0.01
"""Of the learning rate, what a cosine decays to (chapter 5: 5e-4 to 5e-6)."""


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor of a training's iterations.

    It is counted over `total` iterations, of which `first` were done before: of the training itself, or of all trainings that
    continue one network. decay: `steps`, x 0.1 at each of the shares `decay_at` of the total; `cosine`, half a period from 1 to
    0.01 (Loshchilov & Hutter, ICLR 2017). factor: on all.
    """

    first: int
    total: int
    decay_at: tuple[float, ...]
    factor: float = 1.0
    decay: Literal["steps", "cosine"] = "steps"

    def __call__(self, iteration: int) -> float:
        done = (self.first + iteration) / self.total
        if self.decay == "cosine":
            return self.factor * (_COSINE_END + (1 - _COSINE_END) * (1 + math.cos(math.pi * done)) / 2)
        return self.factor * 0.1 ** sum(done >= share for share in self.decay_at)


class Learner:
    """Builds network and optimiser and takes training steps; the same seed gives the same steps."""

    def __init__(
        self,
        objective: Objective,
        labels: Labels,
        schedule: Schedule,
        placement: Placement,
        seed: tuple[int, ...],
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> None:
        """`wrap` turns the network into its distributed form; `seed` decides initial weights and random cells."""
        torch.manual_seed(derive_seed(*seed))
        self.objective, self.labels, self.schedule, self.placement, self.seed = (
            objective, labels, schedule, placement, seed,
        )  # fmt: skip
        self.network = placement.move(objective.network())
        groups = objective.parameter_groups(self.network)
        self._rates = [group["lr"] for group in groups]
        self._optimiser = torch.optim.RMSprop(groups, foreach=True)
        self._generator = torch.Generator(placement.device)
        self.network.train()
        self._forward = _Precise(wrap(self.network), placement)

    def step(self, iteration: int, views: Views) -> dict[str, Tensor]:
        """One update, with this rank's share of the batch. Returns the loss and its parts, detached, on the device; their means
        over ranks are those of the whole batch."""
        factor = self.schedule(iteration)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        points = self.labels.in_views(views, self.placement.device)
        self._generator.manual_seed(derive_seed(*self.seed, iteration))  # the same on all ranks
        loss, parts = self.objective.loss(self._forward, self.placement.images(views.picture), points, self._generator)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return {name: value.detach() for name, value in parts.items()}

    def state(self) -> bytes:
        """Weights and optimiser, to continue from."""
        buffer = io.BytesIO()
        torch.save({"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}, buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        """Continue where `state` was taken, in this step or at the end of the one before."""
        found = _load(state)
        self.network.load_state_dict(found["network"])
        self._optimiser.load_state_dict(found["optimiser"])

    def start_from(self, state: bytes) -> None:
        """Take an earlier stage's weights as a start; the optimiser is fresh."""
        self.network.start_from(_load(state)["network"])  # type: ignore[operator]


class _Precise(nn.Module):
    """The network under the placement's autocast."""

    def __init__(self, network: nn.Module, placement: Placement) -> None:
        super().__init__()
        self._network, self._placement = network, placement

    def forward(self, image: Tensor) -> Any:
        with self._placement.precision():
            return self._network(image)


def load_weights(state: bytes) -> dict[str, Tensor]:
    """The network's weights of a stored state."""
    return _load(state)["network"]


def weights_alone(state: bytes) -> bytes:
    """A stored state without the optimiser's."""
    buffer = io.BytesIO()
    torch.save({"network": load_weights(state)}, buffer)
    return buffer.getvalue()


def _load(state: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)


def derive_seed(*numbers: int) -> int:
    """One 63-bit seed of several numbers."""
    return int(np.random.SeedSequence([int(n) for n in numbers]).generate_state(1, np.uint64)[0] >> 1)
