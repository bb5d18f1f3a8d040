import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tag2mask.functional.reduction import sum_over_ranks


def test_one_process_keeps_its_value() -> None:
    value = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(value) is value


def _rank(rank: int, port: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    weight = torch.tensor(3.0, requires_grad=True)
    part = weight * (rank + 1)  # sum over both ranks: 3 * weight
    loss = sum_over_ranks(part).square()  # 9 * weight^2, gradient 18 * weight
    loss.backward()
    assert weight.grad is not None
    mean = weight.grad.clone()
    dist.all_reduce(mean)
    mean /= 2  # as a parallel wrapper does
    assert loss.item() == 81
    assert mean.item() == 54
    dist.destroy_process_group()


def test_loss_and_averaged_gradient_equal_those_of_the_complete_batch() -> None:
    mp.spawn(_rank, args=("29531",), nprocs=2)
