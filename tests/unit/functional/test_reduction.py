import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tag2mask.functional.reduction import (
    first_row,
    max_over_ranks,
    num_ranks,
    own_rank,
    rows_of_ranks,
    sum_over_ranks,
)


def test_one_process_keeps_its_value() -> None:
    value = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(value) is value
    assert rows_of_ranks(value) is value
    assert max_over_ranks(torch.tensor(3.0)) == 3
    assert (num_ranks(), own_rank(), first_row(4)) == (1, 0, 0)


def _rank(rank: int, port: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    weight = torch.tensor(3.0, requires_grad=True)
    part = weight * (rank + 1)  # sum over both ranks: 3 * weight
    loss = sum_over_ranks(part).square()  # 9 * weight^2, gradient 18 * weight
    loss.backward()
    assert weight.grad is not None
    assert loss.item() == 81
    assert mean_over_ranks(weight.grad) == 54
    assert (num_ranks(), own_rank(), first_row(4)) == (2, rank, 4 * rank)
    weight.grad = None
    own = weight * torch.tensor([[1.0 + rank, 2.0]])
    rows = rows_of_ranks(own)
    assert rows.tolist() == [[3, 6], [6, 6]]
    # Every rank has a loss of its own, so the mean gradient is that of the mean loss.
    (rows[:, 0] * torch.tensor([1.0, 10.0]) * (rank + 1)).sum().backward()
    assert mean_over_ranks(weight.grad) == 1.5 * (1 * 1 + 10 * 2)
    weight.grad = None
    largest = max_over_ranks((weight * (rank + 1)).squeeze())
    assert largest.item() == 6
    largest.backward()
    assert mean_over_ranks(weight.grad) == 2
    dist.destroy_process_group()


def mean_over_ranks(gradient: torch.Tensor) -> float:
    """Average a gradient as a parallel wrapper does."""
    mean = gradient.clone()
    dist.all_reduce(mean)
    return mean.item() / 2


def test_loss_and_averaged_gradient_equal_those_of_the_complete_batch() -> None:
    mp.spawn(_rank, args=("29531",), nprocs=2)
