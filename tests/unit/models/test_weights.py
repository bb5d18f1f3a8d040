from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tag2mask.errors import WeightsError
from tag2mask.models.weights import (
    UNKNOWN_LICENSE,
    card_license,
    fill,
    license,
    official_mit_names,
    read_config,
    read_tensors,
)


def tensors() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([7.0, 8.0])}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_safetensors_folder_and_file_are_read(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    assert same(read_tensors(str(tmp_path)), tensors())
    assert same(read_tensors(str(tmp_path / "model.safetensors")), tensors())


@pytest.mark.parametrize("wrapped", [False, True])
def test_torch_archives_are_read(tmp_path: Path, wrapped: bool) -> None:
    content = {"state_dict": tensors(), "epoch": 3} if wrapped else tensors()
    torch.save(content, tmp_path / "mit_b1.pth")
    assert same(read_tensors(str(tmp_path / "mit_b1.pth")), tensors())


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from a weights file was run')",)


def test_archives_with_code_are_rejected(tmp_path: Path) -> None:
    torch.save({"weight": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=r"bad\.pth: not a readable weights file"):
        read_tensors(str(tmp_path / "bad.pth"))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_truncated_files_are_rejected_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02 not tensors")
    with pytest.raises(WeightsError, match="not a readable weights file") as caught:
        read_tensors(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_archive_without_names_is_rejected(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="contains a list instead of named tensors"):
        read_tensors(str(tmp_path / "list.pth"))


def test_empty_folders_and_missing_paths_have_different_messages(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="contains no weights"):
        read_tensors(str(tmp_path))
    with pytest.raises(WeightsError, match="no such file or folder"):
        read_tensors(str(tmp_path / "absent"))


def test_failed_download_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(repo: str, name: str, *, revision: str | None, local_files_only: bool) -> str:
        raise OSError("offline\nand a long explanation")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"nvidia/mit-b1: .*\(offline\)") as caught:
        read_tensors("nvidia/mit-b1")
    assert "\n" not in str(caught.value)


def test_torch_weights_are_downloaded_if_there_are_no_safetensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.save(tensors(), tmp_path / "pytorch_model.bin")

    def fetch(repo: str, name: str, *, revision: str | None, local_files_only: bool) -> str:
        assert (repo, revision) in (("owner/name", None), ("owner/name", "f00"))
        if not (tmp_path / name).exists():
            raise huggingface_hub.errors.EntryNotFoundError(name)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert same(read_tensors("owner/name"), tensors())
    assert same(read_tensors("owner/name@f00"), tensors())
    assert read_config("owner/name") == {}


def test_cache_is_used_offline_and_missing_files_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.save(tensors(), tmp_path / "pytorch_model.bin")

    def offline(repo: str, name: str, *, revision: str | None, local_files_only: bool) -> str:
        if not (tmp_path / name).exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached\nlong story")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    assert same(read_tensors("owner/name"), tensors())
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"owner/name: .* the hub cannot be reached$"):
        read_tensors("owner/name")


def test_config_is_read_from_a_folder_or_next_to_a_file(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    assert read_config(str(tmp_path)) == {}
    (tmp_path / "config.json").write_text(json.dumps({"depth_multiplier": 0.5}))
    assert read_config(str(tmp_path)) == {"depth_multiplier": 0.5}
    assert read_config(str(tmp_path / "model.safetensors")) == {"depth_multiplier": 0.5}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not valid JSON"):
        read_config(str(tmp_path))


def test_fill_loads_all_tensors_and_returns_parameter_names() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = {name: torch.full_like(t, 5) for name, t in network.state_dict().items()}
    filled = fill(network, state, "file")
    assert filled == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert all((t == 5).all() for t in network.state_dict().values())


def test_fill_names_up_to_three_differing_tensors_with_both_shapes() -> None:
    network = nn.Linear(3, 2)
    wrong = {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        fill(network, wrong, "weights.pth")
    assert str(caught.value) == (
        "weights.pth: weights of another architecture: "
        "bias missing in the file, (2,) in the network; "
        "extra (1,) in the file, missing in the network; "
        "weight (2, 4) in the file, (2, 3) in the network"
    )
    with pytest.raises(WeightsError, match=r"and 7 more$"):
        fill(network, {f"w{i:02}": torch.zeros(1) for i in range(8)}, "x")
    assert network.weight.shape == (2, 3)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nvidia/mit-b1", "NVIDIA Source Code License, non-commercial"),
        ("/data/mit_b3.pth", "NVIDIA Source Code License, non-commercial"),
        ("google/mobilenet_v1_1.0_224", "Apache-2.0"),
        ("/data/mobilenet_v1_0.75_224", "Apache-2.0"),
        ("/data/summit-b1", UNKNOWN_LICENSE),
        ("own/model.safetensors", UNKNOWN_LICENSE),
    ],
)
def test_license_depends_on_the_release_name(source: str, expected: str) -> None:
    assert license(source) == expected


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (
            "---\nlicense: apache-2.0\ntags:\n- vision\n---\n# ResNet\n",
            "apache-2.0 (from the model card)",
        ),
        ("---\ntags:\n- vision\n---\nlicense: not in the header\n", "unknown"),
        ("# A card without a header\nlicense: mit\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_license_is_read_from_the_model_card(
    tmp_path: Path, card: str | None, expected: str
) -> None:
    (tmp_path / "model.safetensors").touch()
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert card_license(str(tmp_path)).startswith(expected)
    assert card_license(str(tmp_path / "model.safetensors")).startswith(expected)


def test_hugging_face_names_become_official_names() -> None:
    prefix = "segformer.encoder."
    names = {
        "patch_embeddings.0.proj.weight": "patch_embed1.proj.weight",
        "patch_embeddings.3.layer_norm.bias": "patch_embed4.norm.bias",
        "layer_norm.1.weight": "norm2.weight",
        "block.0.1.layer_norm_1.weight": "block1.1.norm1.weight",
        "block.2.0.layer_norm_2.bias": "block3.0.norm2.bias",
        "block.0.0.attention.self.query.weight": "block1.0.attn.q.weight",
        "block.0.0.attention.self.sr.bias": "block1.0.attn.sr.bias",
        "block.0.0.attention.self.layer_norm.weight": "block1.0.attn.norm.weight",
        "block.1.0.attention.output.dense.weight": "block2.0.attn.proj.weight",
        "block.1.0.mlp.dense1.weight": "block2.0.mlp.fc1.weight",
        "block.1.0.mlp.dwconv.dwconv.weight": "block2.0.mlp.dwconv.dwconv.weight",
        "block.1.0.mlp.dense2.bias": "block2.0.mlp.fc2.bias",
    }
    tags = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
    renamed = official_mit_names(
        {**{prefix + name: t for name, t in tags.items()}, "classifier.weight": torch.zeros(1)}
    )
    assert renamed == {official: tags[name] for name, official in names.items()}


def test_key_rows_come_before_value_rows() -> None:
    name = "segformer.encoder.block.3.1.attention.self."
    key, value = torch.ones(2, 3), torch.zeros(2, 3)
    renamed = official_mit_names({f"{name}value.weight": value, f"{name}key.weight": key})
    assert list(renamed) == ["block4.1.attn.kv.weight"]
    assert torch.equal(renamed["block4.1.attn.kv.weight"], torch.cat([key, value]))


def test_official_names_are_kept_and_the_head_is_dropped() -> None:
    names = ["patch_embed1.proj.weight", "block3.0.attn.norm.bias", "norm4.weight", "head.bias"]
    assert list(official_mit_names({n: torch.zeros(1) for n in names})) == names[:3]


class Payload:
    """Creates a file when it is unpickled; `how` is the way to the code."""

    def __init__(self, how: str, marker: Path) -> None:
        self.how, self.marker = how, marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        code = f"open({str(self.marker)!r}, 'w').close()"
        if self.how == "eval":
            return eval, (f"exec({code!r})",)
        if self.how == "system":
            return os.system, (f"touch '{self.marker}'",)
        if self.how == "getattr":
            return getattr(torch.serialization, "load"), (str(self.marker),)  # noqa: B009 its name
        if self.how == "jit":
            return torch.jit.load, (str(self.marker),)
        return exec, (code,)


def pickled(content: object, layout: str, path: Path) -> None:
    """Write an object as a torch archive, in torch's layout before 1.6, or as a plain pickle."""
    if layout == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")


@pytest.mark.parametrize("layout", ["zip", "old", "plain"])
@pytest.mark.parametrize("how", ["exec", "eval", "system", "getattr", "jit"])
def test_no_code_runs_wherever_it_hides(tmp_path: Path, how: str, layout: str) -> None:
    marker = tmp_path / "ran"
    payload = Payload(how, marker)
    contents = (payload, {"w": payload}, {"state_dict": {"w": torch.ones(1)}, "x": [payload]})
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.pth"
        pickled(content, layout, path)
        with pytest.raises(WeightsError) as caught:
            read_tensors(str(path))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < len(str(path)) + 260
        assert not marker.exists()


@pytest.mark.parametrize("suffix", ["pth", "old.pth", "safetensors"])
def test_every_cut_and_every_flipped_byte_is_one_line_or_harmless(
    tmp_path: Path, suffix: str
) -> None:
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "safetensors":
        save_file(tensors(), whole)
    else:
        torch.save(tensors(), whole, _use_new_zipfile_serialization=suffix == "pth")
    data = whole.read_bytes()
    random = np.random.default_rng(0)
    broken = tmp_path / f"broken.{suffix}"
    answers: list[str] = []
    for trial in range(60):
        at = int(random.integers(len(data)))
        changed = data[:at] + bytes([int(random.integers(256))]) + data[at + 1 :]
        broken.write_bytes(data[:at] if trial % 2 else changed)
        try:
            read_tensors(str(broken))
        except WeightsError as error:
            answers.append(str(error))
    assert len(answers) >= 30
    assert not any("\n" in answer for answer in answers)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_loaded(value: float) -> None:
    broken = tensors() | {"bias": torch.tensor([1.0, value])}
    with pytest.raises(
        WeightsError,
        match=r"^here: 1 of 2 tensors contain NaN or infinite values, the first is bias",
    ):
        fill(nn.Linear(3, 2), broken, "here")
