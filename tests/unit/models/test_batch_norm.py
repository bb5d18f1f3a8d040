from __future__ import annotations

import copy
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from tag2mask.models.batch_norm import SharedBatchNorm, share_batch_statistics
from tag2mask.models.folding import fold


def _one_rank(rank: int, port: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    inputs = torch.load(folder / "in.pt", weights_only=True)
    maps = inputs["maps"][:1] if rank == 0 else inputs["maps"][1:]
    weight = inputs["weight"][:1] if rank == 0 else inputs["weight"][1:]
    maps.requires_grad_()
    norm = SharedBatchNorm(3)
    out = norm(maps)
    (out * weight).sum().backward()
    result = {"out": out.detach(), "grad": maps.grad, **norm.state_dict()}
    torch.save(result, folder / f"out{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_their_batch_statistics(tmp_path: Path) -> None:
    """With batches of 1 and 2 images, all results equal those of one batch of 3."""
    maps, weight = torch.randn(3, 3, 4, 5) * 2 + 7, torch.randn(3, 3, 4, 5)
    torch.save({"maps": maps, "weight": weight}, tmp_path / "in.pt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_one_rank, args=(port, tmp_path), nprocs=2)
    results = [torch.load(tmp_path / f"out{rank}.pt", weights_only=True) for rank in (0, 1)]

    maps.requires_grad_()
    reference = nn.BatchNorm2d(3)
    out = reference(maps)
    (out * weight).sum().backward()

    torch.testing.assert_close(torch.cat([result["out"] for result in results]), out.detach())
    torch.testing.assert_close(torch.cat([result["grad"] for result in results]), maps.grad)
    for result in results:
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(result[name], value, msg=name)


@pytest.mark.parametrize("training", [False, True])
def test_shared_statistics_change_nothing_in_one_process(training: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train(training)
    shared = copy.deepcopy(network)
    share_batch_statistics(shared)
    assert isinstance(shared[1], SharedBatchNorm)
    image = torch.randn(2, 3, 8, 8)
    assert torch.equal(shared(image), network(image))
    for name, value in network.state_dict().items():
        assert torch.equal(shared.state_dict()[name], value), name


def test_a_folded_norm_shares_its_statistics_too() -> None:
    pair = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    fold(pair[0], pair[1])
    assert isinstance(pair[1], SharedBatchNorm)
