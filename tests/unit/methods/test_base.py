import pytest
import torch
from tests.conformance.stand_ins import small_method

from tag2mask.methods.base import freeze_loaded_norms, labeling


def test_what_no_checkpoint_filled_learns_at_the_head_rate() -> None:
    method = small_method("cam")
    names = {id(p): name for name, p in method.named_parameters()}
    method.backbone.loaded = frozenset({"cnn.conv_stem.convolution.weight"})
    groups = {
        group.name: [names[id(p)] for p in group.parameters] for group in method.parameter_groups()
    }
    assert groups["base"] == ["backbone.cnn.conv_stem.convolution.weight"]
    assert "head.classifier.weight" in groups["head"]
    assert any("branch" in name for name in groups["head"])


def test_only_loaded_norms_are_frozen() -> None:
    backbone = small_method("cam").backbone
    cnn_norms = {n for n, _ in backbone.named_parameters() if "cnn" in n and "norm" in n}
    backbone.loaded = frozenset(cnn_norms)
    freeze_loaded_norms(backbone)
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == cnn_norms
    assert any("branch" in name and "norm" in name for name, _ in backbone.named_parameters())


def test_a_norm_is_known_by_its_kind() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    layers.loaded = frozenset({"0.weight", "0.bias", "1.weight", "1.bias"})
    freeze_loaded_norms(layers)
    assert [one.requires_grad for one in layers.parameters()] == [True, True, False, False]


def test_labeling_puts_the_mode_back_even_after_a_problem() -> None:
    backbone = small_method("cam").train().backbone
    with labeling(backbone, "bf16", "cpu"):
        assert not backbone.training
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert backbone.training
    with pytest.raises(RuntimeError), labeling(backbone, "fp32", "cpu"):
        raise RuntimeError
    assert backbone.training
    assert torch.is_grad_enabled()
