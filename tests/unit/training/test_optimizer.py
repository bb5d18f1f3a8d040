import pytest
import torch

from tag2mask.config.schema import OptimConfig
from tag2mask.errors import RunError
from tag2mask.methods.base import ParameterGroup
from tag2mask.methods.build import build_method
from tag2mask.training.optimizer import (
    build_optimizer,
    load_optimizer_tensors,
    lr_multiplier,
    optimizer_tensors,
    set_learning_rates,
)

PUBLISHED = OptimConfig(steps=20_000, lr=6.0e-5, head_lr=6.0e-4)


def stepped(method, optimizer, count):
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        for parameter in method.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize(
    ("step", "rate", "digits"), [(199, 7.960e-6, 4), (1599, 5.520e-5, 4), (19_999, 3.0e-9, 2)]
)
def test_rate_follows_the_published_log(toy, step, rate, digits):
    optimizer = build_optimizer(build_method(toy.recipe()), PUBLISHED)
    rates = set_learning_rates(optimizer, PUBLISHED, step)
    assert f"{rates['base']:.{digits - 1}e}" == f"{rate:.{digits - 1}e}"
    assert rates["head"] == pytest.approx(10 * rates["base"])
    assert [group["lr"] for group in optimizer.param_groups] == list(rates.values())


def test_schedule_starts_at_the_ratio_or_without_warmup_at_one():
    settings = {"total": 100, "warmup_ratio": 1e-6, "power": 1.0}
    assert lr_multiplier(0, warmup=10, **settings) == pytest.approx(1e-6)
    assert lr_multiplier(10, warmup=10, **settings) == pytest.approx(0.9)
    assert lr_multiplier(0, warmup=0, **settings) == 1.0


def test_power_shapes_the_decay():
    bent = lr_multiplier(75, total=100, warmup=0, warmup_ratio=1e-6, power=0.5)
    assert bent == pytest.approx(0.5)


def test_only_loaded_weights_train_at_the_base_rate(toy):
    method = build_method(toy.recipe())
    optimizer = build_optimizer(method, PUBLISHED)
    base, head = optimizer.param_groups
    assert [id(p) for p in base["params"]] == [id(method.backbone.stem.weight)]
    assert len(head["params"]) == len(list(method.parameters())) - 1
    assert (base["weight_decay"], base["betas"], base["eps"]) == (0.01, (0.9, 0.999), 1e-8)
    assert base["fused"] is True


def test_state_is_restored_after_a_change_of_parameter_order(toy):
    method, other = build_method(toy.recipe()), build_method(toy.recipe())
    other.load_state_dict(method.state_dict())
    optimizer = build_optimizer(method, PUBLISHED)
    stepped(method, optimizer, 2)
    other.load_state_dict(method.state_dict())
    other.parameter_groups = lambda: [
        ParameterGroup("head", list(other.parameters())[::-1], "head"),
    ]
    again = build_optimizer(other, PUBLISHED.model_copy(update={"head_lr": 6.0e-5}))
    tensors = {name: value.clone() for name, value in optimizer_tensors(optimizer, method).items()}
    load_optimizer_tensors(again, other, tensors)
    for group in optimizer.param_groups:
        group["lr"] = 6.0e-5
    stepped(method, optimizer, 1)
    stepped(other, again, 1)
    for name, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_method_without_parameters_is_rejected(toy):
    method = build_method(toy.recipe()).requires_grad_(False)
    with pytest.raises(RunError, match="ToyMethod has no parameter to train"):
        build_optimizer(method, PUBLISHED)


def test_sgd_steps_equal_a_hand_computation(toy):
    """v = 0.5 v + (g + 0.1 w), w = w - rate v; biases: twice the rate, no decay."""
    config = OptimConfig(
        optimizer="sgd", lr=0.01, head_lr=0.1, bias_lr_factor=2, decay_biases=False,
        momentum=0.5, weight_decay=0.1, steps=10, warmup=0,
    )  # fmt: skip
    method = build_method(toy.recipe())
    for parameter in method.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.ones_like(parameter)
    optimizer = build_optimizer(method, config)
    assert set_learning_rates(optimizer, config, 0) == pytest.approx(
        {"base": 0.01, "head": 0.1, "head_bias": 0.2}
    )
    optimizer.step()
    # After one step v is 1.1 for weights and 1 for biases.
    assert method.backbone.stem.weight.flatten()[0].item() == pytest.approx(1 - 0.01 * 1.1)
    assert method.late.weight.flatten()[0].item() == pytest.approx(1 - 0.1 * 1.1)
    assert method.backbone.stem.bias[0].item() == pytest.approx(1 - 0.2)
    assert method.late.bias[0].item() == pytest.approx(0.8)
    optimizer.step()
    # Then w is 0.89 and v 0.55 + 1 + 0.089 for weights; v is 0.5 + 1 for biases.
    assert method.late.weight.flatten()[0].item() == pytest.approx(0.89 - 0.1 * 1.639)
    assert method.late.bias[0].item() == pytest.approx(0.8 - 0.2 * 1.5)


def test_loaded_biases_have_a_separate_rate(toy):
    config = OptimConfig(lr=0.01, head_lr=0.1, bias_lr_factor=2, warmup=0)
    method = build_method(toy.recipe())
    method.backbone.loaded = frozenset({"stem.weight", "stem.bias"})
    optimizer = build_optimizer(method, config)
    assert set_learning_rates(optimizer, config, 0) == pytest.approx(
        {"base": 0.01, "base_bias": 0.02, "head": 0.1, "head_bias": 0.2}
    )
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}


def test_decay_may_be_longer_or_shorter_than_the_run(toy):
    # AEFT: 31,084 steps of a decay over 52,880 with power 0.9.
    config = OptimConfig(lr=0.01, steps=31_084, decay_steps=52_880, power=0.9, warmup=0)
    optimizer = build_optimizer(build_method(toy.recipe()), config)
    assert set_learning_rates(optimizer, config, 31_084)["base"] == pytest.approx(
        0.01 * 0.41218**0.9, 1e-4
    )
    short = config.model_copy(update={"decay_steps": 100})
    assert set_learning_rates(optimizer, short, 101)["base"] == 0.0
