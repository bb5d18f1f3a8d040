import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tag2mask import plugins
from tag2mask.checkpoint import (
    check_state,
    read_license,
    read_state,
    read_weights,
    save_state,
    save_weights,
    stage_folder,
)
from tag2mask.config.recipe import parse_recipe
from tag2mask.errors import RunError, Tag2MaskError, WeightsError


@pytest.fixture
def recipe(monkeypatch):
    script = Path(__file__).parent / "training" / "toy_training.py"
    spec = importlib.util.spec_from_file_location("toy_training_for_checkpoint", script)
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    monkeypatch.setattr(plugins, "load", toy.load)
    return toy.recipe()


def test_weights_are_read_with_their_recipe_and_versions(recipe, tmp_path):
    state = {"a": torch.randn(2, 3), "b": torch.tensor(4), "c": torch.ones(2, dtype=torch.bfloat16)}
    path = tmp_path / "weights" / "best.safetensors"
    save_weights(path, state, recipe)
    tensors, used = read_weights(path)
    torch.testing.assert_close(tensors, state, rtol=0, atol=0)
    assert used.model_dump() == recipe.model_dump()
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["torch"] == torch.__version__
        assert file.metadata()["tag2mask"]


def test_tied_tensors_and_views_are_saved_completely(recipe, tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    state = {"a": matrix, "b": matrix, "row": matrix[1], "transposed": matrix.T}
    save_weights(tmp_path / "w.safetensors", state, recipe)
    torch.testing.assert_close(read_weights(tmp_path / "w.safetensors")[0], state)


def test_read_tensors_do_not_depend_on_the_file(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.ones(3)}, {})
    tensors, _ = read_state(path)
    save_state(path, {"a": torch.zeros(3)}, {})
    assert tensors["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_unreadable_weights_give_one_line(tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"w\.safetensors: weights cannot be read \(.+\)"
    ) as problem:
        read_weights(path)
    assert "\n" not in str(problem.value)


def test_weights_of_other_programs_are_rejected(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match="contains no recipe"):
        read_weights(path)


def test_mismatched_weights_name_three_tensors_with_shapes():
    expected = {name: torch.ones(2) for name in "abcdef"}
    found = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(2, 1), "x": torch.ones(4)}
    with pytest.raises(WeightsError) as problem:
        check_state(expected, found, "best.safetensors")
    assert str(problem.value) == (
        "best.safetensors: weights of another architecture: b is (2,) in the network, "
        "(3,) in the file; c is (2,) in the network, (2, 1) in the file; d is (2,) in the network, "
        "absent in the file; and 3 more"
    )


def test_matching_weights_are_accepted():
    check_state({"a": torch.ones(2)}, {"a": torch.zeros(2)}, "w")


def test_state_is_read_exactly(tmp_path):
    tensors = {"model.a": torch.rand(5), "rng": torch.get_rng_state()}
    record = {"step": 3, "sum": 0.1 + 0.2, "ranks": [{"window": {"a": [1.5, 2]}}]}
    save_state(tmp_path / "s.safetensors", tensors, record)
    found, again = read_state(tmp_path / "s.safetensors")
    torch.testing.assert_close(found, tensors, rtol=0, atol=0)
    assert again == record


def test_damaged_state_gives_one_line(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(RunError, match=r"training state cannot be read \(.+\)"):
        read_state(path)


def test_a_run_with_stages_means_its_last_stage_of_the_kind(recipe, tmp_path):
    assert stage_folder(tmp_path / "none", "train") == tmp_path / "none"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), "utf-8")
    assert stage_folder(tmp_path, "train") == tmp_path
    stages = {
        "cam": {"run": "train"},
        "seed": {"run": "label", "from": "cam"},
        "seg": {"run": "train", "labels": "seed"},
        "score": {"run": "evaluate", "from": "seg"},
    }
    staged = parse_recipe(recipe.plain() | {"stages": stages}, "r")
    (tmp_path / "recipe.yaml").write_text(staged.to_yaml(), "utf-8")
    assert stage_folder(tmp_path, "train") == tmp_path / "seg"
    assert stage_folder(tmp_path, "label") == tmp_path / "seed"


@pytest.mark.parametrize(
    "text", ["a: &x [*x]", "a: [", "[]", "!!python/name:os.system", "9" * 5000]
)
def test_weights_with_a_broken_recipe_give_one_line(tmp_path, text):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"recipe": text})
    with pytest.raises(Tag2MaskError, match=r"w\.safetensors:") as caught:
        read_weights(path)
    assert len(caught.value.problems) == 1
    assert len(str(caught.value)) < 500


def test_metadata_is_in_a_fixed_order_so_that_equal_runs_give_equal_files(recipe, tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, {"ä": torch.arange(3.0)}, recipe, 'a "free" license\n')
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    names = list(json.loads(data[8 : 8 + size])["__metadata__"])
    assert names == ["format", "recipe", "tag2mask", "torch", "weights_license"]
    assert read_weights(path)[0]["ä"].tolist() == [0, 1, 2]
    assert read_license(path) == 'a "free" license\n'
