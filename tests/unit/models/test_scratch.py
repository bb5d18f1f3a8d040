import pickle

import torch
from torch import nn

from tag2mask.models.folding import fold
from tag2mask.models.scratch import scratch_copy, shallow_copy


def network() -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    fold(layers[0], layers[1])  # the convolution refers to its norm outside of the modules
    return layers


def test_the_copy_computes_the_same_with_the_same_tensors() -> None:
    original = network().eval()
    copied = scratch_copy(original)
    image = torch.rand(1, 3, 5, 5)
    assert torch.equal(copied(image), original(image))
    for first, second in zip(original.parameters(), copied.parameters(), strict=True):
        assert first.data_ptr() == second.data_ptr()
        assert first.requires_grad
        assert not second.requires_grad
    assert copied[0].norm[0] is copied[1]


def test_only_named_parameters_can_change_and_only_in_the_copy() -> None:
    original = network().eval()
    before = pickle.dumps(original)
    copied = scratch_copy(original, trainable={"2.weight"})
    assert [name for name, one in copied.named_parameters() if one.requires_grad] == ["2.weight"]
    copied(torch.rand(1, 3, 5, 5)).sum().backward()
    with torch.no_grad():
        copied[2].weight.add_(1)
    assert pickle.dumps(original) == before
    assert all(one.grad is None for one in original.parameters())


def test_a_shallow_copy_shares_everything_but_what_is_replaced() -> None:
    original = network()
    other = nn.Conv2d(4, 2, 1)
    copied = shallow_copy(original, **{"2": other}, note="copy")
    assert copied[2] is other
    assert copied[0] is original[0]
    assert original[2] is not other
    assert copied.note == "copy"
    assert not hasattr(original, "note")
