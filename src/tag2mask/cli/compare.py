"""Draw one figure across runs: image, truth, one column per run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tag2mask.errors import DataError, Tag2MaskError, did_you_mean

if TYPE_CHECKING:  # imports torch, which --help need not load
    from tag2mask.inference.segmenter import Segmenter
    from tag2mask.types import Sample

KEY_SECTIONS = ("predict", "refiner", "data", "method")
EXAMPLES = """\
  tag2mask compare runs/cam runs/rml --images a.jpg,b.jpg --out figure.png
  tag2mask compare runs/cam runs/rml --data VOC2012 --split val --images 2007_000033 --out f.png
  tag2mask compare runs/afa runs/rml --what affinity --query 0.5 0.3 --images a.jpg --out f.png"""
Query = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--query",
        metavar="X Y",
        help="Point whose attention or affinity is drawn, as fractions of the width from the "
        "left and of the height from the top; default: the strongest CAM of the first run.",
    ),
]


def run(
    ctx: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Run folders, or Hugging Face ids.")
    ],
    images: Annotated[
        str,
        typer.Option(
            "--images",
            metavar="A,B",
            help="Image files; with --data, names of images of its list.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Picture to write, as PNG.")],
    what: Annotated[
        Literal["masks", "cams", "attention", "affinity"],
        typer.Option("--what", help="What each run shows."),
    ] = "masks",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Folder of tagged images: the tags choose the classes, and true masks are drawn.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="List of DATA; default: the one of `label`."),
    ] = None,
    query: Query = None,
) -> None:
    """Draw one figure across runs: image, truth, one column per run.

    KEY=VALUE words change the inference settings of every run, as in `label` and `predict`.
    """
    if split is not None and data is None:
        raise Tag2MaskError(f"--split {split}: needs --data, the folder with the list")
    from tag2mask import api
    from tag2mask.visualization.comparison import comparison_rows, save_comparison

    runs = list(dict.fromkeys(runs))
    short = [Path(run).name for run in runs]
    titles = short if len(set(short)) == len(runs) else runs
    segmenters = {
        title: api.open_run(run, ctx.obj.overrides) for title, run in zip(titles, runs, strict=True)
    }
    first = next(iter(segmenters.values()))
    names = [name.strip() for name in images.split(",") if name.strip()]
    samples = _files(first, names) if data is None else _listed(first, names, data, split)
    rows = comparison_rows(segmenters, samples, what, tagged=data is not None, query=query)
    save_comparison(rows, out)
    print(f"figure: {out}")


def _files(segmenter: Segmenter, names: list[str]) -> list[Sample]:
    """Read image files, which have no tags and no masks."""
    import numpy as np

    from tag2mask.io.images import read_image
    from tag2mask.types import Sample

    tags = np.zeros(len(segmenter.class_names), dtype=np.uint8)
    value_range = segmenter.value_range
    return [Sample(Path(name).stem, read_image(Path(name), value_range), tags) for name in names]


def _listed(segmenter: Segmenter, names: list[str], data: Path, split: str | None) -> list[Sample]:
    """Read images of a data set, with their tags and masks."""
    from tag2mask import api

    source, part = api.open_source(segmenter.recipe, data, split, {})
    index_of = {name: index for index, name in enumerate(source.names)}
    for name in names:
        if name not in index_of:
            hint = did_you_mean(name, source.names)
            raise DataError(f"{data}: the list '{part}' has no image '{name}'.{hint}")
    return [source[index_of[name]] for name in names]
