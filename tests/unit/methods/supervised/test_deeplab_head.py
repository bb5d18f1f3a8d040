import pytest
import torch

from tag2mask.methods.supervised.deeplab_head import DeepLabHead


def test_response_to_one_pixel_is_the_sum_of_the_dilated_kernels() -> None:
    """The response to one bright pixel is each branch's kernel with its dilation."""
    torch.manual_seed(0)
    head = DeepLabHead(2, 3, dilations=(2, 5))
    impulse = torch.zeros(1, 2, 15, 15)
    impulse[0, 1, 7, 7] = 1.0
    expected = torch.zeros(3, 15, 15)
    for rate, branch in zip((2, 5), head.branches, strict=True):
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                # Cross-correlation: the pixel to the upper left uses the last tap.
                tap = branch.weight[:, 1, 1 + row, 1 + column]
                expected[:, 7 - rate * row, 7 - rate * column] += tap.detach()
    torch.testing.assert_close(head([torch.rand(1, 9, 60, 60), impulse])[0], expected)


def test_initial_weights_are_small() -> None:
    head = DeepLabHead(256, 21)
    assert [branch.dilation for branch in head.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    weights = torch.cat([branch.weight.flatten() for branch in head.branches])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)
    assert not any(branch.bias.any() for branch in head.branches)
    assert sum(parameter.numel() for parameter in head.parameters()) == 4 * (256 * 9 * 21 + 21)
