import pytest
import torch
from torch import nn

from tag2mask.methods.onestage.aspp import ASPP


def aspp() -> ASPP:
    torch.manual_seed(0)
    return ASPP(6, 8, (1, 3))


@pytest.mark.parametrize("batch", [1, 2])
def test_size_is_kept_and_a_single_image_is_supported(batch: int) -> None:
    fused = aspp().train()(torch.rand(batch, 6, 5, 7))
    assert fused.shape == (batch, 8, 5, 7)
    assert fused.min() >= 0


def test_every_branch_has_gradients() -> None:
    module = aspp()
    module(torch.rand(2, 6, 5, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_dilated_layers_have_the_given_dilations() -> None:
    module = aspp().eval()
    with torch.no_grad():
        nn.init.zeros_(module.image_pool.weight)  # which depends on all pixels
    image = torch.rand(1, 6, 9, 9)
    changed = image.clone()
    changed[..., 4, 4] += 1
    differs = (module(changed) - module(image)).abs().sum(dim=1)[0] > 0
    near = {(4 + dy, 4 + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    far = {(4 + dy, 4 + dx) for dy in (-3, 0, 3) for dx in (-3, 0, 3)}
    assert {tuple(position) for position in differs.nonzero().tolist()} == near | far
