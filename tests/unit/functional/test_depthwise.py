import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.depthwise import depthwise_conv

SETTINGS = [(5, 1, 2, 1), (5, 2, 2, 1), (3, 1, 2, 2), (5, 1, 4, 2), (5, 1, 0, 1), (3, 2, 2, 2)]
"""Kernel, stride, padding, dilation."""
D = 6


def results(
    plain: bool, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[Tensor, ...]:
    """Return the output and the gradients of maps, weight and bias."""
    torch.manual_seed(1)
    maps = torch.randn(2, D, 11, 14).contiguous(memory_format=torch.channels_last)
    inputs = (maps.requires_grad_(), torch.randn(D, 1, kernel, kernel), torch.randn(D))
    for one in inputs:
        one.requires_grad_()
    if plain:
        out = F.conv2d(*inputs, stride, padding, dilation, D)
    else:
        pairs = ((stride, stride), (padding, padding), (dilation, dilation))
        out = depthwise_conv(*inputs, stride=pairs[0], padding=pairs[1], dilation=pairs[2])
    (out * torch.randn_like(out)).sum().backward()
    return out, *(one.grad for one in inputs)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SETTINGS)
def test_values_and_gradients_equal_those_of_torch(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    settings = (kernel, stride, padding, dilation)
    for ours, expected in zip(results(False, *settings), results(True, *settings), strict=True):
        assert ours.dtype == expected.dtype
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SETTINGS)
def test_autocast_gives_gradients_of_the_weights_precision(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    settings = (kernel, stride, padding, dilation)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(False, *settings)
    expected = results(True, *settings)
    assert [one.dtype for one in ours] == [torch.bfloat16, *[torch.float32] * 3]
    for first, second in zip(ours, expected, strict=True):
        torch.testing.assert_close(first.float(), second, atol=0.4, rtol=0.05)


def test_gradients_are_computed_only_where_needed() -> None:
    weight = torch.randn(D, 1, 5, 5, requires_grad=True)
    out = depthwise_conv(
        torch.rand(1, D, 8, 8), weight, None, stride=(1, 1), padding=(2, 2), dilation=(1, 1)
    )
    out.sum().backward()
    assert weight.grad is not None
