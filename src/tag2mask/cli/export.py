"""Export masks to a labeling tool: COCO, CVAT, YOLO, palette PNG and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  tag2mask export MASKS --format coco --out masks.json
  tag2mask export MASKS --format cvat --out masks.zip
  tag2mask export MASKS --format coco --out worst.json --most-uncertain 20
  tag2mask export MASKS --format yolo_seg --out DATASET --images IMAGES"""


def run(
    masks: Annotated[
        Path,
        typer.Argument(
            metavar="MASKS",
            help="Folder of masks that `label` or `predict` wrote; or a run with stages, whose "
            "last label stage counts.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="'tag2mask list formats' shows all."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="PATH", help="File or folder to create, as the format needs."
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="DIR",
            help="Folder of the images; default: where they were when the masks were written.",
        ),
    ] = None,
    most_uncertain: Annotated[
        int | None,
        typer.Option(
            "--most-uncertain",
            metavar="N",
            min=1,
            help="Export only the N images whose masks are the most uncertain.",
        ),
    ] = None,
    flat: Annotated[
        bool, typer.Option("--flat", help="Drop the folders from the names of images.")
    ] = False,
) -> None:
    """Export masks to a labeling tool: COCO, CVAT, YOLO, palette PNG and others.

    Pixels of value 0 are background. 'tag2mask import' reads corrected masks back.
    """
    from tag2mask import api

    count = api.export(masks, format, out, images=images, most_uncertain=most_uncertain, flat=flat)
    print(f"{count} masks exported to {out}")
