"""Export masks to a labeling tool, or the network of a run as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  tag2mask export MASKS --format coco --out masks.json
  tag2mask export MASKS --format cvat --out masks.zip
  tag2mask export MASKS --format coco --out worst.json --most-uncertain 20
  tag2mask export MASKS --format yolo_seg --out DATASET --images IMAGES
  tag2mask export RUN --format onnx --out model.onnx
  tag2mask export RUN --format onnx --out fast.onnx predict.scales=1.0 predict.flip=false"""
KEY_SECTIONS = ("predict", "refiner", "method")

FormatOption = Annotated[
    str, typer.Option("--format", metavar="NAME", help="'tag2mask list formats' shows all.")
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="MASKS|RUN",
        help="Folder of masks that `label` or `predict` wrote; or a run with stages, whose "
        "last label stage counts. For onnx and torch_export: a run, whose network is exported.",
    ),
]


def run(
    ctx: typer.Context,
    source: SourceArgument,
    format: FormatOption,
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
    """Export masks to a labeling tool, or the network of a run as ONNX.

    Pixels of value 0 are background. 'tag2mask import' reads corrected masks back. Recipe keys
    change the test-time settings of an exported network.
    """
    from tag2mask import api
    from tag2mask.errors import RecipeError, RunError
    from tag2mask.formats.exchange import is_model_format

    if is_model_format(format):
        if images is not None or most_uncertain is not None or flat:
            raise RunError(
                f"--images, --most-uncertain and --flat are for masks; {format} exports a run"
            )
        api.export_model(source, format, out, overrides=ctx.obj.overrides)
        print(f"network of {source} exported to {out} ({out.stat().st_size / 1e6:.1f} MB)")
        return
    if ctx.obj.overrides:
        word = next(iter(ctx.obj.overrides))
        raise RecipeError(f"{word}: keys change a network, and {format} exports masks")
    count = api.export(source, format, out, images=images, most_uncertain=most_uncertain, flat=flat)
    print(f"{count} masks exported to {out}")
