"""Convert published weights to a file that this program reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tag2mask.cli.parsing import parse
from tag2mask.errors import RunError


@dataclass(frozen=True)
class Convert:
    """Convert ImageNet weights of Wide-ResNet-38 to safetensors, for the backbone 'resnet38d'.

    Reads the authors' MXNet file (MXNet is not needed), or a torch file made of it.
    """

    source: tyro.conf.Positional[Path]
    """The published file."""
    out: Path
    """File to write; it must not exist."""


def run(arguments: Sequence[str]) -> None:
    """Convert, and say how to use what was written."""
    chosen = parse(Convert, arguments, "convert")
    if chosen.out.exists():
        raise RunError(f"{chosen.out}: exists already; choose another name")
    convert_resnet38d(chosen.source, chosen.out)
    print(f"{chosen.out}: use it with --backbone.name resnet38d --backbone.weights {chosen.out}")


def convert_resnet38d(source: Path, out: Path) -> None:
    """Write the weights of Wide-ResNet-38 under this program's names, without their classifier.

    Raises:
        WeightsError: If the source cannot be read or holds another network.
        RunError: If the file cannot be written.
    """
    from safetensors.torch import save_file

    from tag2mask.io.files import write_atomically
    from tag2mask.models.backbones.resnet38d import read_resnet38d

    tensors = read_resnet38d(str(source))
    metadata = {"format": "pt", "source": source.name}
    write_atomically(out, lambda temporary: save_file(tensors, temporary, metadata))
