"""Sums over the processes of a distributed run, so that losses cover the full batch."""

from __future__ import annotations

import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from torch import Tensor


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum `value` over all processes, differentiably. A single process returns it unchanged.

    A loss computed from such sums is the same on every rank, and its averaged gradient is the
    gradient for the full batch: the backward pass of the sum adds over ranks, and the parallel
    wrapper divides by their number.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    summed: Tensor = dist_functional.all_reduce(value)  # type: ignore[no-untyped-call]  # torch
    return summed
