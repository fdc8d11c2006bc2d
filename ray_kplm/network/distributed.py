"""Communication of training ranks, which gives them the gradients of one process on the whole batch.

Every rank has an equal share of a batch, in the order of ranks, and `DistributedDataParallel` averages their gradients. The
average of the ranks' means is not the overall mean if their numbers of elements differ: see `share_of_mean`. In a single
process, with or without a process group, nothing here communicates. All ranks must call the collective functions alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

PARALLEL = {"static_graph": True, "gradient_as_bucket_view": True}
"""Options of `DistributedDataParallel`: every weight has a gradient in every step; gradients lie where they are reduced."""
PARALLEL_COMPILED = PARALLEL | {"static_graph": False}
"""The same of a network that is compiled: the graphs that PyTorch then makes of it, one a bucket of gradients, do not always
work with a static graph (pytorch/pytorch issue 109261)."""


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if _has_process_group() else 1


def rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return dist.get_rank() if _has_process_group() else 0


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows (n, ...) of all ranks, detached: (world_size * n, ...), in the order of ranks.

    The shape must be equal on all ranks. In training it is: a batch is split evenly, and the points of an image are padded to
    the largest number in the round.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows
    gathered = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def own_rows(rows: Tensor) -> Tensor:
    """Return this rank's part of the rows of all ranks, the inverse of `gather_rows`: (world_size * n, ...) -> (n, ...)."""
    return rows.chunk(world_size())[rank()]


def sum_over_ranks(own: Tensor) -> Tensor:
    """Return the elementwise sum of all ranks' tensors, detached: the same on every rank."""
    total = own.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def share_of_mean(own_sum: Tensor, count: Tensor) -> Tensor:
    """Return this rank's share of a mean over the elements of all ranks.

    The average of the shares over ranks is the mean, and the average of their gradients is the gradient of the mean. The mean
    of no elements is zero.

    Args:
        own_sum: Sum of this rank's elements.
        count: Number of elements of all ranks.
    """
    return world_size() * own_sum / count.clamp(min=1)


def _has_process_group() -> bool:
    return dist.is_available() and dist.is_initialized()
