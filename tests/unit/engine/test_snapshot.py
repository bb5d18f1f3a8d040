import pytest
import torch

from tag2mask.engine.optim import build_optimiser
from tag2mask.engine.snapshot import restore, snapshot
from tag2mask.errors import WeightsError
from tag2mask.methods.base import build_method


def trained(toy, seed):
    recipe = toy.recipe()
    torch.manual_seed(seed)
    method = build_method(recipe)
    optimiser = build_optimiser(method, recipe.optim)
    for parameter in method.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    return method, optimiser


def test_snapshot_goes_back_in_whole(toy):
    method, optimiser = trained(toy, 0)
    tensors = {name: value.clone() for name, value in snapshot(method, optimiser).items()}
    other, again = trained(toy, 1)
    restore(other, again, tensors, "run")
    found = snapshot(other, again)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(value, found[name]) for name, value in tensors.items())


def test_snapshot_names_moments_by_parameter(toy):
    names = snapshot(*trained(toy, 0)).keys()
    assert {
        "model.late.bias",
        "optimiser.exp_avg.late.bias",
        "model.backbone.norm.running_mean",
    } <= names


def test_another_network_is_refused_by_name(toy):
    method, optimiser = trained(toy, 0)
    tensors = snapshot(method, optimiser)
    tensors["model.late.bias"] = torch.zeros(5)
    with pytest.raises(
        WeightsError, match=r"run: .*late\.bias is \(1,\) here and \(5,\) in the file"
    ):
        restore(method, optimiser, tensors, "run")
