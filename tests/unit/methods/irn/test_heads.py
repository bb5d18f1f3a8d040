import pytest
import torch

from tag2mask.methods.irn.heads import DisplacementHead, EdgeHead

CHANNELS = (8, 12, 16, 20)


def maps(num=2):
    generator = torch.Generator().manual_seed(0)
    sides = (16, 8, 4, 4)
    return tuple(
        torch.randn(num, width, side, side + 1, generator=generator)
        for width, side in zip(CHANNELS, sides, strict=True)
    )


@pytest.mark.parametrize(("kind", "width"), [(EdgeHead, 1), (DisplacementHead, 2)])
def test_branches_use_every_map_and_return_the_finest_size(kind, width):
    torch.manual_seed(0)
    head, inputs = kind(CHANNELS), [one.requires_grad_() for one in maps()]
    out = head(inputs)
    assert out.shape == (2, width, 16, 17)
    out.square().sum().backward()
    assert all(one.grad.any() for one in inputs)


def test_edge_branch_has_32_channels_per_map():
    head = EdgeHead(CHANNELS)
    assert [layer[0].out_channels for layer in head.embed] == [32] * 4
    assert [layer[1].num_groups for layer in head.embed] == [4] * 4
    assert head.mix.in_channels == 128


def test_displacement_branch_uses_the_last_four_of_five_widths():
    widths = [layer[0].out_channels for layer in DisplacementHead(CHANNELS).embed]
    assert widths == [128, 256, 256, 256]
