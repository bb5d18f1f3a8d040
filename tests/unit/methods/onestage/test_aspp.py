import pytest
import torch
from torch import nn

from tag2mask.methods.onestage.aspp import ASPP


def aspp() -> ASPP:
    torch.manual_seed(0)
    return ASPP(6, 8, (1, 3))


@pytest.mark.parametrize("batch", [1, 2])
def test_the_grid_stays_and_a_single_image_trains(batch: int) -> None:
    found = aspp().train()(torch.rand(batch, 6, 5, 7))
    assert found.shape == (batch, 8, 5, 7)
    assert found.min() >= 0


def test_every_branch_is_used() -> None:
    module = aspp()
    module(torch.rand(2, 6, 5, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_each_dilated_layer_sees_as_far_as_it_says() -> None:
    module = aspp().eval()
    with torch.no_grad():
        nn.init.zeros_(module.whole.weight)  # that one sees everything
    image = torch.rand(1, 6, 9, 9)
    changed = image.clone()
    changed[..., 4, 4] += 1
    moved = (module(changed) - module(image)).abs().sum(dim=1)[0] > 0
    near = {(4 + dy, 4 + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    far = {(4 + dy, 4 + dx) for dy in (-3, 0, 3) for dx in (-3, 0, 3)}
    assert {tuple(place) for place in moved.nonzero().tolist()} == near | far
