"""Import masks that a person corrected in a labeling tool."""  # noqa: N999 the command's name

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tag2mask.cli.export import FormatOption

EXAMPLES = """\
  tag2mask import instances.json --format coco --out DATA/masks
  tag2mask import cvat.zip --format cvat --out DATA/masks
  tag2mask import DATASET --format yolo_seg --images IMAGES --out DATA/masks"""


def run(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="File or folder that the tool exported.")
    ],
    format: FormatOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder to create, usually 'masks' beside the images."
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="DIR",
            help="Folder of the images, to give masks their names again where the tool dropped "
            "folders; some formats need it for the sizes of images.",
        ),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Add to the masks of an existing folder.")
    ] = False,
) -> None:
    """Import masks that a person corrected in a labeling tool.

    Writes an indexed PNG for each image and classes.json, which 'train' and 'evaluate' read.
    """
    from tag2mask import api

    count = api.import_masks(path, format, out, images=images, add=add)
    print(f"{count} masks imported to {out}")
