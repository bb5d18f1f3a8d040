"""Turn a published file into one that this program reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from tag2mask.cli.parsing import parse, reject_no_workers
from tag2mask.errors import RunError


@dataclass(frozen=True)
class Convert:
    """Turn a published file into one that this program reads.

    coco: masks, tags and a list in VOC layout; see 'tag2mask convert coco --help'.

    resnet38d: ImageNet weights of Wide-ResNet-38, from the authors' MXNet file (MXNet is not
    needed) or from a torch file made of it, to safetensors.
    """

    kind: tyro.conf.Positional[Literal["resnet38d"]]
    """What the file holds."""
    source: tyro.conf.Positional[Path]
    """The published file."""
    out: Path
    """File to write; it must not exist."""


@dataclass(frozen=True)
class ConvertCOCO:
    """Write data in COCO format as VOC-style masks, tags.csv and a list. May be started again.

    Training needs none of it: the data source 'coco' reads the JSON itself.
    """

    json: tyro.conf.Positional[Path]
    """Instances file, such as annotations/instances_train2014.json."""
    images: tyro.conf.Positional[Path]
    """Folder of its images."""
    out: Path
    """Folder to write into; what it has is never changed. Parts may share one."""
    part: str | None = None
    """Name of the list and folders; none: the file's, as 'train' of instances_train2014.json."""
    keep_empty: bool = False
    """List images without any annotation, too; the published lists leave them out."""
    workers: int | None = None
    """Threads; none: as many as there are processor cores."""


def run(arguments: Sequence[str]) -> None:
    """Convert, and say how to use what was written."""
    if arguments[:1] == ["coco"]:
        run_coco(arguments[1:])
        return
    chosen = parse(Convert, arguments, "convert")
    if chosen.out.exists():
        raise RunError(f"{chosen.out}: exists already; choose another name")
    convert_resnet38d(chosen.source, chosen.out)
    print(f"{chosen.out}: use it with --backbone.name resnet38d --backbone.weights {chosen.out}")


def run_coco(arguments: Sequence[str]) -> None:
    """Write masks, tags and list of one instances file, and say how to use them."""
    chosen = parse(ConvertCOCO, arguments, "convert coco")
    reject_no_workers(chosen.workers)

    from tag2mask.data.coco_to_voc import convert_coco
    from tag2mask.inference.writer import progress

    with progress() as bar:
        task = bar.add_task("convert", total=None)
        done = convert_coco(
            chosen.json,
            chosen.images,
            chosen.out,
            part=chosen.part,
            keep_empty=chosen.keep_empty,
            workers=chosen.workers,
            tell=lambda number, total: bar.update(task, completed=number, total=total),
        )
    print(f"{chosen.out}: {done.written:,} masks written, {done.already:,} were there")
    if not done.linked:
        print(f"link or copy the images to {chosen.out / 'JPEGImages' / done.part}")
    print(f"use: --data.name voc --data.root {chosen.out} --data.split {done.part}")


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
