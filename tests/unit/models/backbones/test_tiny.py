import pytest
import torch

from tag2mask.errors import WeightsError
from tag2mask.models.backbones.tiny import Tiny, TinyConfig


def layer_count(in_width: int, width: int) -> int:
    """Count 3 x 3 weights, and gain and offset of the BatchNorm."""
    return 9 * in_width * width + 2 * width


def block_count(width: int) -> int:
    """Count two norms; q, kv, proj; fc1, depthwise 3 x 3, fc2: all with bias."""
    attention = 4 * width * width + 4 * width
    feed_forward = 2 * 4 * width * width + 4 * width + width + 10 * 4 * width
    return 4 * width + attention + feed_forward


def test_number_of_parameters_by_hand():
    layers = ((3, 16), (16, 16), (16, 32), (32, 32), (32, 48), (48, 48), (48, 64))
    up = 64 * 64 + 64
    expected = sum(layer_count(*pair) for pair in layers) + 2 * block_count(64) + 4 * 64 + up
    built = Tiny(TinyConfig(width=16))
    assert sum(parameter.numel() for parameter in built.parameters()) == expected
    assert built.channels == (32, 48, 64, 64)


@torch.no_grad()
def test_last_map_is_local_until_the_blocks_are_active():
    network = Tiny(TinyConfig(width=8)).eval()
    image = torch.rand(1, 3, 128, 128)
    changed = image.clone()
    changed[..., 96:, 96:] += 1
    for is_active in (False, True):
        network.up.weight.fill_(0.1 * is_active)
        before, after = (network(one).maps for one in (image, changed))
        assert torch.equal(before[2][..., :2, :2], after[2][..., :2, :2])
        assert torch.equal(before[3][..., :2, :2], after[3][..., :2, :2]) is not is_active


@torch.no_grad()
def test_attention_logits_of_both_blocks_are_unscaled():
    network = Tiny(TinyConfig(width=8)).eval()
    image = torch.rand(1, 3, 64, 32)
    first, second = network(image, attention=True).logits()
    assert first.shape == second.shape == (1, 4, 32, 32)
    tokens = network.norm_in(network(image).maps[2].flatten(2).transpose(1, 2))
    block = network.blocks[0]
    normal = block.norm1(tokens)
    query, key = block.attn.q(normal)[0], block.attn.kv(normal)[0, :, :32]
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        torch.testing.assert_close(first[0, head], query[:, part] @ key[:, part].T)


def test_weights_are_rejected_in_one_line():
    with pytest.raises(WeightsError, match="'tiny' has no pretrained weights") as caught:
        Tiny(TinyConfig(weights="nvidia/mit-b0"))
    assert "\n" not in str(caught.value)
