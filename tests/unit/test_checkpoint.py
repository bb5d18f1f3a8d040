import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tag2mask import plugins
from tag2mask.checkpoint import (
    check_state,
    read_state,
    read_weights,
    save_state,
    save_weights,
    stage_folder,
)
from tag2mask.config.recipe import parse_recipe
from tag2mask.errors import RunError, WeightsError
from tag2mask.io.files import write_atomically, write_text

SAVE = """
import json, os, resource, sys
from pathlib import Path
import torch
from tag2mask.checkpoint import save_state, write_atomically
from tag2mask.errors import RunError
path, trouble = Path(sys.argv[1]), sys.argv[2]
if trouble == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
if trouble == "other_user":
    os.seteuid(65534)
if trouble == "kill":
    def half(temporary):
        temporary.write_bytes(b"half")
        os.kill(os.getpid(), 9)
    write_atomically(path, half)
try:
    save_state(path, {"a": torch.ones(1_000_000)}, {"step": 2})
except RunError as error:
    print(error)
    sys.exit(2)
"""


@pytest.fixture
def recipe(monkeypatch):
    script = Path(__file__).parent / "training" / "toy_training.py"
    spec = importlib.util.spec_from_file_location("toy_training_for_checkpoint", script)
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    monkeypatch.setattr(plugins, "load", toy.load)
    return toy.recipe()


def save_in_trouble(path, trouble):
    return subprocess.run(
        [sys.executable, "-c", SAVE, str(path), trouble],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_rejected_and_intact(done, path, reason):
    assert done.returncode == 2, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{path}: cannot be saved ({reason}); the previous one is intact")
    tensors, record = read_state(path)
    assert (tensors["a"].tolist(), record) == ([7.0], {"step": 1})
    assert [found.name for found in path.parent.iterdir()] == [path.name]


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


def test_files_have_the_permissions_of_any_other_file(tmp_path):
    (tmp_path / "plain").touch()
    save_state(tmp_path / "state", {"a": torch.ones(1)}, {})
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "state")]
    assert modes[0] == modes[1]


def test_text_files_are_replaced(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    for value in ("ä", "b"):
        write_text(path, json.dumps(value, ensure_ascii=False))
        assert json.loads(path.read_text(encoding="utf-8")) == value
    assert [found.name for found in path.parent.iterdir()] == ["metrics.json"]


def test_a_file_size_limit_keeps_the_previous_file(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.tensor([7.0])}, {"step": 1})
    assert_rejected_and_intact(save_in_trouble(path, "limit"), path, "File too large")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="must be root to mount")
def test_a_full_disk_keeps_the_previous_file(tmp_path):
    size = ["-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if subprocess.run(["mount", *size], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        path = tmp_path / "state.safetensors"
        save_state(path, {"a": torch.tensor([7.0])}, {"step": 1})
        done = save_in_trouble(path, "none")
        assert_rejected_and_intact(done, path, "No space left on device")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_missing_permission_keeps_the_previous_file(tmp_path):
    folder = tmp_path / "locked"
    path = folder / "state.safetensors"
    save_state(path, {"a": torch.tensor([7.0])}, {"step": 1})
    folder.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):  # pytest closes its folders to other users
        if parent.owner() == path.owner() and parent != Path("/tmp"):
            parent.chmod(0o755)
    try:
        done = save_in_trouble(path, "other_user" if os.geteuid() == 0 else "none")
        assert_rejected_and_intact(done, path, "Permission denied")
    finally:
        folder.chmod(0o755)


def test_a_killed_writer_keeps_the_previous_file_and_the_next_write_cleans_up(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.tensor([7.0])}, {"step": 1})
    assert save_in_trouble(path, "kill").returncode == -9
    assert read_state(path)[1] == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 2
    write_atomically(path, lambda temporary: temporary.write_bytes(b"new"))
    assert [found.name for found in tmp_path.iterdir()] == ["state.safetensors"]
    assert path.read_bytes() == b"new"


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
