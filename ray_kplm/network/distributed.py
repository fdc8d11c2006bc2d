"""What the ranks of a training share, so that together they have the gradients of one process on the whole batch.

Every rank has an equal share of a batch, in the order of ranks, and `DistributedDataParallel` averages their gradients. A mean
over things that ranks have unequally many of is therefore no mean of their means: see `share_of_mean`. In a single process,
with or without a process group, nothing here communicates. The functions that do are entered by all ranks alike.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Number of ranks; 1 where there is no process group."""
    return dist.get_world_size() if _grouped() else 1


def rank() -> int:
    """Number of this process among the ranks; 0 where there is no process group."""
    return dist.get_rank() if _grouped() else 0


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (n, ...) of all ranks, detached: (world_size * n, ...), in the order of ranks. The shape must be equal on all ranks.

    In training it is: a batch is shared evenly, and the points of an image are padded to the most that one of the round has.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows
    found = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(found, rows.contiguous())
    return torch.cat(found)


def own_rows(rows: Tensor) -> Tensor:
    """This rank's part of the rows of all ranks, the reverse of `gather_rows`: (world_size * n, ...) -> (n, ...)."""
    return rows.chunk(world_size())[rank()]


def sum_over_ranks(own: Tensor) -> Tensor:
    """Elementwise sum of all ranks' tensors, detached: the same on every rank."""
    total = own.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def share_of_mean(own_sum: Tensor, count: Tensor) -> Tensor:
    """This rank's share of a mean over all ranks: what its own elements sum to, and how many there are on all ranks together.

    The average of the shares over ranks is the mean, and so is that of their gradients. Of nothing it is zero.
    """
    return world_size() * own_sum / count.clamp(min=1)


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
