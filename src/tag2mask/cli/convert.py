"""Convert published weights of ResNet-38d to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tag2mask.errors import RunError

EXAMPLES = """\
  tag2mask convert ilsvrc-cls_rna-a1_cls1000_ep-0001.params --out rn38d.safetensors
  tag2mask train seam/voc_resnet38d --out RUN data.root=VOC backbone.weights=rn38d.safetensors"""


def run(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="ImageNet weights of Wide-ResNet-38: the authors' MXNet file (MXNet itself is not "
            "needed), or a torch file converted from it.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="File to write; it must not exist yet."),
    ],
) -> None:
    """Convert published weights of ResNet-38d to safetensors.

    The classifier of the 1,000 ImageNet classes is left out.
    """
    if out.exists():
        raise RunError(f"{out}: exists already; choose another name")
    convert_resnet38d(file, out)
    print(f"{out}: use it with backbone.name=resnet38d backbone.weights={out}")


def convert_resnet38d(source: Path, out: Path) -> None:
    """Write the weights of Wide-ResNet-38 under this program's names, without the classifier.

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
