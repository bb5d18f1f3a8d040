from __future__ import annotations

import pytest
import torch
from torch import nn

from tag2mask.models.base import QueryKey
from tag2mask.models.heads import AffinityHead


def block(images: int, heads: int, positions: int, width: int = 4) -> QueryKey:
    return QueryKey(*torch.randn(2, images, heads, positions, width).unbind(0))


def test_affinity_equals_a_1x1_convolution_of_the_symmetric_logits() -> None:
    head = AffinityHead(16, 64, scale_logits=False, zero_init=False)
    blocks = [block(2, 8, 9), block(2, 8, 9)]
    logits = torch.cat([one.logits() for one in blocks], dim=1)
    convolution = nn.Conv2d(16, 1, 1)
    convolution.weight.data.copy_(head.weight.data.view(1, 16, 1, 1))
    convolution.bias.data.fill_(head.bias.item())

    expected = convolution(logits + logits.transpose(2, 3))[:, 0]

    torch.testing.assert_close(head(blocks), expected, atol=1e-4, rtol=1e-5)


def test_affinity_is_symmetric() -> None:
    logits = AffinityHead(6, 4)([block(3, 6, 7)])
    assert torch.equal(logits, logits.transpose(1, 2))


def test_scaled_logits_are_divided_by_the_square_root_of_the_head_dimension() -> None:
    blocks = [block(1, 4, 5)]
    plain, scaled = AffinityHead(4, 64), AffinityHead(4, 64, scale_logits=True)
    scaled.load_state_dict(plain.state_dict())
    bias = plain.bias.detach()
    torch.testing.assert_close((plain(blocks) - bias) / 8, scaled(blocks) - bias)


def test_zero_init_starts_at_one_half_and_has_gradients() -> None:
    head = AffinityHead(4, 8, zero_init=True)
    probs = head([block(1, 4, 5)]).sigmoid()
    assert torch.equal(probs, torch.full((1, 5, 5), 0.5))
    probs[0, 0, 1].backward()
    assert head.weight.grad is not None
    assert head.weight.grad.abs().sum() > 0


def test_affinity_weights_have_the_published_standard_deviation() -> None:
    torch.manual_seed(0)
    assert AffinityHead(20_000, 64).weight.std().item() == pytest.approx(0.577, rel=0.02)


def test_gradient_reaches_queries_and_keys_of_every_head() -> None:
    attention = QueryKey(*(part.requires_grad_() for part in block(1, 8, 6)))
    AffinityHead(8, 32)([attention]).square().sum().backward()
    for part in attention:
        assert part.grad is not None
        assert (part.grad.abs().sum(dim=(0, 2, 3)) > 0).all()
