"""Look at a data set before training: classes, counts, faults, advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tag2mask.cli.parsing import parse
from tag2mask.errors import DataError

if TYPE_CHECKING:  # reads images, which --help must not wait for
    from tag2mask.data.validation import CheckReport


@dataclass(frozen=True)
class Check:
    """Look at a data set before training: classes, counts, faults, advice."""

    data: tyro.conf.Positional[Path]
    """Folder of tagged images: in COCO format, in VOC layout, or with tags.csv, tags.jsonl or a
    folder per class."""
    strict: bool = False
    """Count unreadable images as faults, as training with --data.strict does."""


def run(arguments: Sequence[str]) -> None:
    """Print what was found; faults end with exit code 2."""
    chosen = parse(Check, arguments, "check")

    from rich.console import Console
    from rich.table import Table

    from tag2mask.data.validation import check_folder

    found = check_folder(chosen.data, strict=chosen.strict)
    if found.images:
        print("\n".join(overview(found)))
        table = Table("class", "images", "share")
        for name, images in found.classes.items():
            table.add_row(name, f"{images:,}", f"{found.share(name):.0%}")
        Console().print(table)
    for line in found.warnings:
        print(f"warning: {line}")
    if found.problems:
        raise DataError("\n".join(found.problems))
    options = f"--data.name {found.source} --data.root {chosen.data}"
    if found.source == "coco":
        training = [name for name, images in found.parts.items() if images and "train" in name]
        options += f" --data.split {training[0] if training else next(iter(found.parts))}"
    print(f"ready: tag2mask train RECIPE {options} --out RUN")


def overview(found: CheckReport) -> Iterator[str]:
    """Say in lines what a data set holds."""
    yield f"{found.root}: {found.images:,} images, read as '{found.source}'"
    parts = ", ".join(f"{name} {images:,}" for name, images in found.parts.items())
    yield f"parts: {parts}"
    counts = ", ".join(f"{images:,} with {tags}" for tags, images in found.tags_per_image.items())
    yield f"images by number of tags: {counts}; {found.negatives:,} show no class (negatives)"
    if found.sizes:
        sizes = ", ".join(f"{width} x {height}" for width, height in found.sizes)
        yield f"smallest, middle and largest image in pixels: {sizes}"
    yield f"masks: {found.masks:,}, unreadable images: {found.unreadable:,}"
