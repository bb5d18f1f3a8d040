import json

import pytest
import torch

from tag2mask.checkpoint import read_weights, save_weights
from tag2mask.config.recipe import load_recipe
from tag2mask.errors import RunError, WeightsError
from tag2mask.methods.build import build_method
from tag2mask.training.trainer import train
from tag2mask.training.warm_start import class_axes, start_from

OLD, NEW = ("blue", "green", "red"), ("green", "yellow", "blue")


@pytest.fixture
def saved(toy, tmp_path):
    """Return a function that saves the weights of a toy network as those of a run."""

    def save(change=lambda state: state, **words):
        torch.manual_seed(1)
        recipe = toy.recipe(**words).with_classes(OLD)
        state = build_method(recipe).state_dict()
        path = tmp_path / "old" / "weights" / "best.safetensors"
        save_weights(path, change(state), recipe)
        return str(tmp_path / "old"), state

    return save


def fresh(toy, **words):
    torch.manual_seed(2)
    recipe = toy.recipe(**words).with_classes(NEW)
    return build_method(recipe), recipe


def test_rows_follow_the_names_of_the_classes(toy, saved):
    run, old = saved()
    method, recipe = fresh(toy)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    line = start_from(method, recipe, run)
    after = method.state_dict()
    for name in ("classifier.weight", "classifier.bias"):
        assert torch.equal(after[name][0], old[name][1])  # green
        assert torch.equal(after[name][1], before[name][1])  # yellow is new
        assert torch.equal(after[name][2], old[name][0])  # blue
    for name in ("backbone.stem.weight", "backbone.norm.running_var", "late.bias"):
        assert torch.equal(after[name], old[name])
    assert line.startswith(f"starts from {run} ")
    assert "classes kept: green, blue; new: yellow; no longer learned: red" in line


def test_background_keeps_its_row(toy, saved):
    words = {"method__name": "supervised", "method__decoder_width": 8}
    run, old = saved(**words)
    method, recipe = fresh(toy, **words)
    start_from(method, recipe, run)
    name = "decoder.classifier.bias"
    assert name in class_axes(method, recipe)
    after = method.state_dict()[name]
    assert torch.equal(after[[0, 1, 3]], old[name][[0, 2, 1]])  # background, green, blue


def test_a_classifier_warm_up_starts_anew(toy, tmp_path):
    recipe = load_recipe("rml/synthetic_tiny").with_classes(OLD)
    update = {"warmup_rule": "auto"}
    recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update=update)})
    method = build_method(recipe)
    method.warmup.crossed.fill_(99)
    save_weights(tmp_path / "weights" / "best.safetensors", method.state_dict(), recipe)
    method = build_method(recipe)
    start_from(method, recipe, str(tmp_path))
    assert int(method.warmup.crossed) == -1


def test_heads_of_another_method_start_fresh_and_it_is_said(toy, saved):
    run, _ = saved()
    words = {"method__name": "supervised", "method__decoder_width": 8}
    method, recipe = fresh(toy, **words)
    assert "have no counterpart there and start fresh" in start_from(method, recipe, run)


def test_another_backbone_is_rejected(toy, saved):
    run, _ = saved(lambda state: {**state, "backbone.stem.weight": torch.zeros(8, 3, 4, 4)})
    method, recipe = fresh(toy)
    with pytest.raises(WeightsError, match=r"^[^\n]*its backbone differs[^\n]*$"):
        start_from(method, recipe, run)
    with pytest.raises(RunError, match="no such run folder"):
        start_from(method, recipe, "nothing here")


def test_a_run_starts_from_another_and_resumes_without_it(toy, tmp_path, saved):
    run, old = saved()
    recipe = toy.recipe(run__weights_from=run, optim__lr=1e-12, optim__head_lr=1e-12)
    out = train(recipe, tmp_path / "new")
    state, _ = read_weights(out / "weights" / "last.safetensors")
    torch.testing.assert_close(state["late.weight"], old["late.weight"])
    first = json.loads((out / "log.jsonl").read_text("utf-8").splitlines()[0])
    assert first["starts_from"].startswith(f"starts from {run}")
    (tmp_path / "old" / "weights" / "best.safetensors").unlink()
    train(recipe, out, resume=True)
