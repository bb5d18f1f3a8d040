import pytest
import torch

from tag2mask.engine.optim import (
    build_optimiser,
    load_optimiser_tensors,
    multiplier,
    optimiser_tensors,
    set_rates,
)
from tag2mask.errors import RunError
from tag2mask.methods.base import ParameterGroup, build_method
from tag2mask.recipe import OptimConfig

PUBLISHED = OptimConfig(steps=20_000, lr=6.0e-5, head_lr=6.0e-4)


def stepped(method, optimiser, count):
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        for parameter in method.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()


@pytest.mark.parametrize(
    ("step", "rate", "digits"), [(199, 7.960e-6, 4), (1599, 5.520e-5, 4), (19_999, 3.0e-9, 2)]
)
def test_rate_follows_the_published_log(toy, step, rate, digits):
    optimiser = build_optimiser(build_method(toy.recipe()), PUBLISHED)
    rates = set_rates(optimiser, PUBLISHED, step)
    assert f"{rates['base']:.{digits - 1}e}" == f"{rate:.{digits - 1}e}"
    assert rates["head"] == pytest.approx(10 * rates["base"])
    assert [group["lr"] for group in optimiser.param_groups] == list(rates.values())


def test_schedule_begins_at_the_ratio_and_without_warmup_at_one():
    settings = {"total": 100, "warmup_ratio": 1e-6, "power": 1.0}
    assert multiplier(0, warmup=10, **settings) == pytest.approx(1e-6)
    assert multiplier(10, warmup=10, **settings) == pytest.approx(0.9)
    assert multiplier(0, warmup=0, **settings) == 1.0


def test_power_bends_the_decay():
    bent = multiplier(75, total=100, warmup=0, warmup_ratio=1e-6, power=0.5)
    assert bent == pytest.approx(0.5)


def test_only_loaded_weights_train_at_the_base_rate(toy):
    method = build_method(toy.recipe())
    optimiser = build_optimiser(method, PUBLISHED)
    base, head = optimiser.param_groups
    assert [id(p) for p in base["params"]] == [id(method.backbone.stem.weight)]
    assert len(head["params"]) == len(list(method.parameters())) - 1
    assert (base["weight_decay"], base["betas"], base["eps"]) == (0.01, (0.9, 0.999), 1e-8)
    assert base["fused"] is True


def test_state_survives_a_change_of_order(toy):
    method, other = build_method(toy.recipe()), build_method(toy.recipe())
    other.load_state_dict(method.state_dict())
    optimiser = build_optimiser(method, PUBLISHED)
    stepped(method, optimiser, 2)
    other.load_state_dict(method.state_dict())
    other.parameter_groups = lambda: [
        ParameterGroup("head", list(other.parameters())[::-1], "head"),
    ]
    again = build_optimiser(other, PUBLISHED.model_copy(update={"head_lr": 6.0e-5}))
    tensors = {name: value.clone() for name, value in optimiser_tensors(optimiser, method).items()}
    load_optimiser_tensors(again, other, tensors)
    for group in optimiser.param_groups:
        group["lr"] = 6.0e-5
    stepped(method, optimiser, 1)
    stepped(other, again, 1)
    for name, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_method_without_parameters_is_refused(toy):
    method = build_method(toy.recipe()).requires_grad_(False)
    with pytest.raises(RunError, match="ToyMethod has no parameter to train"):
        build_optimiser(method, PUBLISHED)
