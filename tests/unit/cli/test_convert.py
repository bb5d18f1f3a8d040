from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tag2mask.cli.main import main
from tag2mask.models.backbones.resnet38d import ResNet38d, ResNet38dConfig


@pytest.fixture
def network() -> ResNet38d:
    return ResNet38d(ResNet38dConfig(width=1 / 16))


def test_weights_are_written_without_their_classifier(
    network: ResNet38d, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "res38_cls.pth", tmp_path / "deep" / "resnet38d.safetensors"
    torch.save({**network.state_dict(), "fc8.weight": torch.zeros(2)}, source)
    assert main(["convert", str(source), "--out", str(out)]) == 0
    written = load_file(out)
    assert written.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(written[name], value), name
    with safe_open(out, "pt") as file:
        assert file.metadata()["source"] == "res38_cls.pth"
    assert f"backbone.name=resnet38d backbone.weights={out}" in capsys.readouterr().out


def test_existing_file_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept.safetensors"
    out.write_text("precious")
    assert main(["convert", "x.params", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "precious"


def test_weights_of_another_network_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(tmp_path / "foreign.safetensors"), "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "not a Wide-ResNet-38" in message
    assert len(message.splitlines()) == 1
    assert not out.exists()
