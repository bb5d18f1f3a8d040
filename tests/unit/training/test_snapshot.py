import pytest
import torch

from tag2mask.checkpoint import save_state
from tag2mask.errors import RunError, WeightsError
from tag2mask.methods.build import build_method
from tag2mask.training.optimizer import build_optimizer
from tag2mask.training.snapshot import read_snapshot, restore, snapshot


def trained(toy, seed):
    recipe = toy.recipe()
    torch.manual_seed(seed)
    method = build_method(recipe)
    optimizer = build_optimizer(method, recipe.optim)
    for parameter in method.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return method, optimizer


def test_a_restored_snapshot_equals_the_original(toy):
    method, optimizer = trained(toy, 0)
    tensors = {name: value.clone() for name, value in snapshot(method, optimizer).items()}
    other, again = trained(toy, 1)
    restore(other, again, tensors, "run")
    restored = snapshot(other, again)
    assert restored.keys() == tensors.keys()
    assert all(torch.equal(value, restored[name]) for name, value in tensors.items())


def test_snapshot_names_moments_by_parameter(toy):
    names = snapshot(*trained(toy, 0)).keys()
    assert {
        "model.late.bias",
        "optimizer.exp_avg.late.bias",
        "model.backbone.norm.running_mean",
    } <= names


def test_another_network_is_rejected_with_the_name_of_a_tensor(toy):
    method, optimizer = trained(toy, 0)
    tensors = snapshot(method, optimizer)
    tensors["model.late.bias"] = torch.zeros(5)
    with pytest.raises(
        WeightsError, match=r"run: .*late\.bias is \(1,\) in the network, \(5,\) in the file"
    ):
        restore(method, optimizer, tensors, "run")


RANK = {"rng": {}, "window": {"loss": [0.5, 2]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": "3"}, "step: Input should be a valid integer"),
        ({"step": -1}, "step: Input should be greater"),
        ({"seconds": None}, "seconds: Input should be a valid number"),
        ({"ranks": []}, "ranks: List should have at least 1 item"),
        ({"ranks": [{"rng": {}}]}, r"ranks\.0\.window: Field required"),
    ],
)
def test_a_record_that_was_changed_by_hand_is_one_line(tmp_path, change, message):
    path = tmp_path / "state.safetensors"
    good = {"step": 3, "seconds": 1.5, "ranks": [RANK]}
    save_state(path, {"a": torch.ones(1)}, good)
    assert read_snapshot(path)[1] == good
    save_state(path, {"a": torch.ones(1)}, good | change)
    with pytest.raises(RunError, match=rf"{message}.*; start a new run folder"):
        read_snapshot(path)
