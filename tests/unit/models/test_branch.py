from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from tag2mask.models.base import QueryKey
from tag2mask.models.branch import WIDTH, Branch, Fusion

FUSIONS = get_args(Fusion)
D = 64


@pytest.fixture(params=FUSIONS)
def branch(request: pytest.FixtureRequest) -> Branch:
    torch.manual_seed(0)
    return Branch(D, 3, request.param)


def normalized(maps: Tensor) -> Tensor:
    """Give every position mean 0 and variance 1 over the channels."""
    centered = maps - maps.mean(dim=1, keepdim=True)
    return centered / (centered.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()


def test_pretrained_map_is_kept_at_initialization(branch: Branch) -> None:
    maps = torch.rand(2, D, 4, 5) * 6
    out = branch(maps, None)
    expected = maps if branch.fusion == "sum" else normalized(maps)
    torch.testing.assert_close(out[:, :D], expected, atol=1e-4, rtol=1e-4)


def test_map_has_the_declared_channels(branch: Branch) -> None:
    out = branch(torch.rand(1, D, 3, 4), None)
    assert out.shape == (1, branch.channels, 3, 4)
    assert branch.channels == (D + WIDTH if branch.fusion == "concat" else D)


def test_last_two_blocks_are_captured(branch: Branch) -> None:
    capture: list[QueryKey] = []
    branch(torch.rand(2, D, 3, 4), capture)
    assert len(capture) == 2
    assert sum(block.heads for block in capture) == branch.attention_channels
    assert capture[0].query.shape == (2, 8, 12, branch.head_dim)


def test_every_parameter_learns_once_the_branch_has_left_zero(branch: Branch) -> None:
    maps, weight = torch.rand(1, D, 4, 4), torch.randn(1, branch.channels, 4, 4)
    for parameter in branch.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    (branch(maps, None) * weight).sum().backward()
    for name, parameter in branch.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_strength_of_a_position_does_not_change_the_normalized_forms(branch: Branch) -> None:
    """Per position, LayerNorm removes the scale: a classifier sees direction only."""
    if branch.fusion == "sum":
        pytest.skip("keeps the strength")
    maps = torch.rand(1, D, 4, 4) * 6
    out = branch(maps, None)[:, :D]
    torch.testing.assert_close(branch(3 * maps, None)[:, :D], out, atol=1e-3, rtol=1e-3)
