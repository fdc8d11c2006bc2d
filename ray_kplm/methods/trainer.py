"""The training step of one process: network, optimiser, learning rate. Independent of Ray and of the source of batches."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ray_kplm.methods.batch import Points, Views
from ray_kplm.methods.compiled_loss import CompiledLoss, can_compile
from ray_kplm.methods.labels import CarriedLabels, Labels
from ray_kplm.network.compute import Autocast, Placement
from ray_kplm.network.transfer import copy_to_host
from ray_kplm.storage import Folder

NETWORK = "network.pt"
"""A stored state (weights and optimiser) in the folder of the step that trained it."""


class Objective(Protocol):
    """A network architecture and its loss. Picklable; it holds no weights."""

    def network(self) -> nn.Module:
        """Return a network with random weights."""
        ...

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return the parameter groups of the optimiser, with `lr` and `weight_decay`."""
        ...

    def loss(
        self, network: nn.Module, image_B3SS: Tensor, points: Points, cells_BR: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and its parts (scalars, `loss` among them).

        Args:
            network: in its distributed form, if there are several workers.
            image_B3SS: float32 views, 0 to 1.
            points: labelled points in the views.
            cells_BR: what `random_cells` drew.
        """
        ...

    def random_cells(self, views: int, generator: torch.Generator) -> Tensor | None:
        """Draw the random cells that are negatives in a step, None if the loss has none.

        They are drawn outside of the loss, which then is a function of tensors of fixed shapes: `torch.compile` takes no
        generator.

        Args:
            views: of this rank.
            generator: in the same state on all ranks.
        """
        ...


_COSINE_END = 0.01
"""Share of the learning rate at the end of a cosine (thesis chapter 5: 5e-4 to 5e-6)."""


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor of each iteration of a training.

    Attributes:
        first: iterations of the schedule that earlier trainings did.
        total: iterations of the schedule: those of the training, or of all trainings that continue one network.
        decay_at: shares of `total` at which `steps` multiplies the rate by 0.1.
        factor: multiplies all rates.
        decay: `steps`, or `cosine`: half a period from 1 to 0.01 (Loshchilov & Hutter, ICLR 2017).
    """

    first: int
    total: int
    decay_at: tuple[float, ...]
    factor: float = 1.0
    decay: Literal["steps", "cosine"] = "steps"

    def __call__(self, iteration: int) -> float:
        """Return the factor of the learning rate."""
        done = (self.first + iteration) / self.total
        if self.decay == "cosine":
            return self.factor * (_COSINE_END + (1 - _COSINE_END) * (1 + math.cos(math.pi * done)) / 2)
        return self.factor * 0.1 ** sum(done >= share for share in self.decay_at)


class Learner:
    """Network and optimiser of a training. The same seed and batches give the same weights, bit for bit."""

    def __init__(
        self,
        objective: Objective,
        labels: Labels | CarriedLabels,
        schedule: Schedule,
        placement: Placement,
        seed: tuple[int, ...],
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> None:
        """Build network and optimiser.

        Args:
            objective: what is minimised.
            labels: pseudo-labels of the round's images.
            schedule: learning-rate factor of each iteration.
            placement: device, number format, and whether network and loss are compiled.
            seed: decides initial weights and random negatives.
            wrap: turns the network into its distributed form.
        """
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
        wrapped = wrap(self.network)
        self._loss: Callable[[Tensor, Points, Tensor | None], tuple[Tensor, dict[str, Tensor]]]
        if placement.compiled and can_compile(wrapped):
            self._loss = CompiledLoss(objective.loss, wrapped, placement)
        else:
            self._loss = partial(objective.loss, Autocast(wrapped, placement))

    @property
    def is_compiled(self) -> bool:
        """Whether network and loss run compiled, as far as is known: see `CompiledLoss`."""
        return isinstance(self._loss, CompiledLoss) and self._loss.is_compiled

    def step(self, iteration: int, views: Views) -> dict[str, Tensor]:
        """Update the weights with this rank's share of a batch.

        Returns:
            The loss and its parts (scalars), detached, on the device. Their means over the ranks are those of the whole batch.
        """
        factor = self.schedule(iteration)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        points = self.labels.in_views(views, self.placement.device)
        self._generator.manual_seed(derive_seed(*self.seed, iteration))  # the same on all ranks
        cells_BR = self.objective.random_cells(len(views.image), self._generator)
        self._optimiser.zero_grad(set_to_none=True)
        loss, parts = self._loss(self.placement.images(views.picture), points, cells_BR)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return {name: value.detach() for name, value in parts.items()}

    def state(self) -> bytes:
        """Return the stored state of weights and optimiser (`torch.save`)."""
        return _stored(self._state())

    def freeze(self) -> Callable[[], bytes]:
        """Copy weights and optimiser as they are now; return what makes `state` of the copy, in any thread."""
        copied = copy_to_host(self._state(), self.placement.device)
        return lambda: _stored(copied())

    def _state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def restore(self, state: bytes) -> None:
        """Continue from a stored state of weights and optimiser: a checkpoint of this training, or the end of the last one."""
        stored = _load(state)
        self.network.load_state_dict(stored["network"])
        self._optimiser.load_state_dict(stored["optimiser"])

    def start_from(self, state: bytes) -> None:
        """Start from the weights of stage 1 in a stored state, with a new head and a new optimiser."""
        self.network.start_from(_load(state)["network"])  # type: ignore[operator]


def load_weights(state: bytes) -> dict[str, Tensor]:
    """Return the network's weights in a stored state, by name."""
    weights: dict[str, Tensor] = _load(state)["network"]
    return weights


def read_weights(folder: Folder) -> dict[str, Tensor]:
    """Return the network's weights in a folder, by name. Raises DamageError if they cannot be read."""
    with folder.parsing(NETWORK):
        return load_weights(folder.read_bytes(NETWORK))


def strip_optimiser(state: bytes) -> bytes:
    """Return a stored state without that of the optimiser."""
    return _stored({"network": load_weights(state)})


def _stored(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _load(state: bytes) -> dict[str, Any]:
    stored: dict[str, Any] = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    return stored


def derive_seed(*numbers: int) -> int:
    """Return a 63-bit seed that is derived from several numbers (`np.random.SeedSequence`)."""
    return int(np.random.SeedSequence([int(n) for n in numbers]).generate_state(1, np.uint64)[0] >> 1)
