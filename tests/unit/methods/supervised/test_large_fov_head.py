import math

import torch

from tag2mask.methods.supervised.large_fov_head import LargeFOVHead


def test_the_published_head_has_two_convolutions_with_bias_and_dilation_12() -> None:
    with torch.device("meta"):
        head = LargeFOVHead(4096, 21)
    shapes = {name: tuple(weight.shape) for name, weight in head.named_parameters()}
    assert shapes == {
        "reduce.weight": (512, 4096, 3, 3),
        "reduce.bias": (512,),
        "classifier.weight": (21, 512, 3, 3),
        "classifier.bias": (21,),
    }
    assert {layer.dilation for layer in head.children()} == {(12, 12)}


def test_weights_start_from_xaviers_rule() -> None:
    torch.manual_seed(0)
    head = LargeFOVHead(32, 5, width=16)
    for layer, width_in, width_out in ((head.reduce, 32, 16), (head.classifier, 16, 5)):
        bound = math.sqrt(6 / (9 * (width_in + width_out)))
        assert 0.98 * bound < layer.weight.abs().max() <= bound


def test_logits_equal_two_explicit_dilated_sums() -> None:
    torch.manual_seed(0)
    head, maps = LargeFOVHead(2, 3, width=4, dilation=2).double(), torch.randn(1, 2, 7, 6).double()
    hidden = dilated(maps[0], head.reduce.weight, head.reduce.bias, 2).clamp_min(0)
    expected = dilated(hidden, head.classifier.weight, head.classifier.bias, 2)
    torch.testing.assert_close(head([torch.rand(1, 9, 60, 60), maps])[0], expected)


def dilated(
    maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, rate: int
) -> torch.Tensor:
    """Convolve (D, h, w) maps by explicit sums, zero outside."""
    _, height, width = maps.shape
    out = bias.detach()[:, None, None].repeat(1, height, width)
    for y in range(height):
        for x in range(width):
            for row in (-1, 0, 1):
                for column in (-1, 0, 1):
                    v, u = y + rate * row, x + rate * column
                    if 0 <= v < height and 0 <= u < width:
                        out[:, y, x] += weight[:, :, row + 1, column + 1] @ maps[:, v, u]
    return out.detach()
