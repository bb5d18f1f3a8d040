from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tag2mask.models.conv_norm import conv_norm, conv_norm_relu, same_padding


def test_folding_equals_batch_norm_in_evaluation_mode() -> None:
    conv, norm = torch.nn.Conv2d(4, 6, 3, stride=2, bias=False), torch.nn.BatchNorm2d(6, eps=1e-3)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    torch.nn.init.normal_(norm.bias)
    image = torch.randn(2, 4, 8, 8)
    expected = norm.eval()(conv(F.pad(image, (0, 1, 0, 1)))).clamp(0, 6)
    torch.testing.assert_close(conv_norm_relu(image, conv, norm), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "added"),
    [(8, 2, 1, (0, 1)), (9, 2, 1, (1, 1)), (8, 1, 1, (1, 1)), (7, 1, 2, (2, 2))],
)
def test_padding_before_and_after(
    size: int, stride: int, dilation: int, added: tuple[int, int]
) -> None:
    """3 taps over `size` values give ceil(size / stride) outputs; odd padding goes last."""
    conv = torch.nn.Conv2d(1, 1, 3, stride=stride, dilation=dilation)
    maps, own = same_padding(torch.ones(1, 1, size, size), conv)
    padded = F.pad(maps, (own[1], own[1], own[0], own[0]))[0, 0]
    row = padded[size // 2]
    assert (row.tolist()) == [0.0] * added[0] + [1.0] * size + [0.0] * added[1]


@pytest.mark.parametrize("size", [(32, 33), (33, 32), (47, 50), (1, 2)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 2, 2), (1, 2, 1)]
)
def test_padding_of_symbolic_sizes_is_that_of_numbers(
    size: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    convolution = torch.nn.Conv2d(3, 4, kernel, stride, dilation=dilation, bias=False)
    norm = torch.nn.BatchNorm2d(4).eval()
    maps = torch.rand(2, 3, *size)
    expected = conv_norm(maps, convolution, norm)
    monkeypatch.setattr("tag2mask.models.conv_norm.is_exporting", lambda: True)
    torch.testing.assert_close(conv_norm(maps, convolution, norm), expected)
