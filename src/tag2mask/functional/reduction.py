"""Values over the processes of a distributed run, so that losses cover the full batch.

The full batch is the batches of all processes in the order of their ranks. All processes must call
each of these functions equally often: one that skips a call alone would let the others wait.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from torch import Tensor


def num_ranks() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_rank() -> int:
    """Return the rank of this process among those of the run."""
    return dist.get_rank() if num_ranks() > 1 else 0


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum `value` over all processes, differentiably. A single process returns it unchanged.

    A loss computed from such sums is the same on every rank, and its averaged gradient is the
    gradient for the full batch: the backward pass of the sum adds over ranks, and the parallel
    wrapper divides by their number.
    """
    if num_ranks() == 1:
        return value
    summed: Tensor = dist_functional.all_reduce(value)  # type: ignore[no-untyped-call]  # torch
    return summed


def rows_of_ranks(value: Tensor) -> Tensor:
    """Concatenate the (N, ...) values of all processes, differentiably, in the order of ranks.

    N must be the same in all processes. A single process returns its value unchanged.
    """
    if num_ranks() == 1:
        return value
    own = torch.arange(num_ranks(), device=value.device) == own_rank()
    own = own.view(-1, *[1] * value.dim())
    return sum_over_ranks(torch.where(own, value, 0.0)).flatten(0, 1)


def max_over_ranks(value: Tensor) -> Tensor:
    """Return the largest of the scalars of all processes, differentiably."""
    return rows_of_ranks(value.reshape(1)).amax()


def first_row(count: int) -> int:
    """Return the index in the full batch of the first of `count` images of this process."""
    return own_rank() * count
