import pytest
import torch
from tests.conformance.stand_ins import small_method

from tag2mask.errors import RecipeError
from tag2mask.methods.frozen import FrozenMethod, ask


def test_an_earlier_network_learns_nothing_and_stays_in_evaluation_mode():
    frozen = FrozenMethod(small_method("cam"), small_method("cam").backbone).train()
    assert not any(part.training for part in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.compute_cam(torch.rand(1, 3, 64, 64, requires_grad=True)).cam.requires_grad


def test_cam_is_the_networks_own():
    method = small_method("cam").eval()
    image = torch.rand(1, 3, 64, 64)
    found = FrozenMethod(method, small_method("cam").backbone).compute_cam(image)
    assert torch.equal(found.cam, method.compute_cam(image).cam)


def test_images_are_normalized_anew_where_backbones_expect_different_colors():
    method, other = small_method("cam").eval(), small_method("cam").backbone
    other.mean = torch.tensor([100.0, 110, 120]).view(1, 3, 1, 1)
    other.std = torch.tensor([50.0, 60, 70]).view(1, 3, 1, 1)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    found = FrozenMethod(method, other).compute_cam(other.normalize(image))
    expected = method.compute_cam(method.backbone.normalize(image))
    torch.testing.assert_close(found.cam, expected.cam, rtol=1e-3, atol=1e-5)


def test_a_missing_stage_is_rejected_in_one_line():
    with pytest.raises(RecipeError, match=r"psa needs .* 'from: STAGE'"):
        ask(None, "psa")
