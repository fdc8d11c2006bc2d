"""Network and loss of a training compiled by `torch.compile`, with the eager ones as the way out (`compute.compile`).

In a single process network and loss are one graph; on CUDA it is replayed as CUDA graphs, since its shapes are static. Of
several ranks the network alone is compiled, in its distributed form: PyTorch then splits it at the buckets of gradients, which
are reduced while others are computed (its notes on DistributedDataParallel). The losses communicate, and stay eager.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ray_kplm.methods.batch import Points
from ray_kplm.network import distributed
from ray_kplm.network.compute import Autocast, Placement
from ray_kplm.schemas import NONE

Loss: TypeAlias = Callable[[nn.Module, Tensor, Points, Tensor | None], tuple[Tensor, dict[str, Tensor]]]
"""Returns the loss of a batch and its parts, as `Objective.loss` does."""
POINTS_MULTIPLE = 16
"""The points of an image are padded to a multiple of this, so that rounds with about as many points have the same shapes."""


class CompiledLoss:
    """The loss of a batch as a compiled function. If it cannot be compiled, it warns and is eager from then on.

    That is found out on the first batch: a forward and a backward pass are tried, and what they changed is taken back. All
    ranks take the same decision. Later trainings of the process with the same shapes use the same graph.
    """

    def __init__(self, loss: Loss, network: nn.Module, placement: Placement) -> None:
        """Prepare the compilation; the first call does it.

        Args:
            loss: Of the objective.
            network: In its distributed form, if there are several ranks.
            placement: Where the network is.
        """
        self._loss, self._network, self._placement = loss, network, placement
        self._on_cuda = placement.device.type == "cuda"
        self._compiled: Callable[..., Any] | None
        if isinstance(network, DistributedDataParallel):
            self._compiled = Autocast(torch.compile(network, dynamic=False), placement)  # type: ignore[arg-type]
        else:
            mode = "reduce-overhead" if self._on_cuda else None
            self._compiled = torch.compile(self._whole(), fullgraph=True, dynamic=False, mode=mode)
        self._is_tried = False

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled function is in use; before the first batch: whether it will be tried."""
        return self._compiled is not None

    def __call__(self, image: Tensor, points: Points, cells: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts."""
        if not self._is_tried:
            self._try(image, points, cells)
        return self._now(image, points, cells)

    def _now(self, image: Tensor, points: Points, cells: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        if self._compiled is None:
            return self._loss(Autocast(self._network, self._placement), image, points, cells)
        if isinstance(self._compiled, nn.Module):
            return self._loss(self._compiled, image, points, cells)
        if self._on_cuda:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        points = padded(points)
        loss, parts = self._compiled(image, points.xy, points.valid, points.identity, points.landmark, cells)
        # The next replay of a CUDA graph overwrites what this one returned.
        return loss, {name: value.detach().clone() for name, value in parts.items()}

    def _whole(self) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """Return network and loss as a function of tensors alone."""
        loss, network = self._loss, Autocast(self._network, self._placement)

        def whole(
            image: Tensor, xy: Tensor, valid: Tensor, identity: Tensor, landmark: Tensor | None, cells: Tensor | None
        ) -> tuple[Tensor, dict[str, Tensor]]:
            return loss(network, image, Points(xy, valid, identity, landmark), cells)

        return whole

    def _try(self, image: Tensor, points: Points, cells: Tensor | None) -> None:
        """Compile, by the passes of a batch. No rank communicates meanwhile: one that fails would leave the others waiting."""
        self._is_tried = True
        before = [(buffer, buffer.clone()) for buffer in self._network.buffers()]  # statistics of batch norms
        failure: Exception | None = None
        try:
            with self._without_reduction():
                if isinstance(self._compiled, nn.Module):
                    _total(self._compiled(image)).backward()  # type: ignore[no-untyped-call]
                else:
                    self._now(image, points, cells)[0].backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # of any kind: compilers, their drivers and PyTorch's tracing have no common one
            failure = error
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        self._network.zero_grad(set_to_none=True)
        if failure is not None:
            warnings.warn(
                f"training goes on without compilation, {_cause(failure)}; a C++ compiler is needed on a CPU, Triton on a GPU; "
                "compute.compile=no leaves the attempt out",
                RuntimeWarning,
                stacklevel=2,
            )
        if distributed.sum_over_ranks(torch.tensor(float(failure is not None), device=image.device)) > 0:
            self._compiled = None

    def _without_reduction(self) -> AbstractContextManager[None]:
        if isinstance(self._network, DistributedDataParallel):
            return self._network.no_sync()
        return nullcontext()


def padded(points: Points) -> Points:
    """Return the points with P padded to a multiple of `POINTS_MULTIPLE`, which changes no loss."""
    more = -points.xy.shape[1] % POINTS_MULTIPLE
    return Points(
        functional.pad(points.xy, (0, 0, 0, more)),
        functional.pad(points.valid, (0, more)),
        functional.pad(points.identity, (0, more), value=NONE),
        None if points.landmark is None else functional.pad(points.landmark, (0, more), value=NONE),
    )


def can_compile(network: nn.Module) -> bool:
    """Return whether a network is worth the attempt: not if batch norms communicate in its forward pass."""
    return not any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())


def _total(output: Any) -> Tensor:
    outputs = output if isinstance(output, tuple) else (output,)
    return torch.stack([values.float().sum() for values in outputs]).sum()


def _cause(error: Exception) -> str:
    """Return the kind and the first paragraph of an error as one line."""
    text = " ".join(str(error).strip().split("\n\n")[0].split())
    return f"{type(error).__name__}: {text[:300]}"
