"""Write masks of tagged images; their tags choose the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tag2mask.cli.inference import (
    KEY_SECTIONS,
    EngineOption,
    OutOption,
    OverlaysOption,
    RunArgument,
    ShardOption,
    ShardsOption,
    SplitOption,
    StrictOption,
    WeightsOption,
    WorkersOption,
    print_network,
    print_summary,
)
from tag2mask.inference.early_start import start_early

__all__ = ["EXAMPLES", "KEY_SECTIONS", "run"]
EXAMPLES = """\
  tag2mask label RUN DATA --out MASKS
  tag2mask label RUN VOCdevkit/VOC2012 --split train --out MASKS
  tag2mask label RUN DATA predict.background=0.4 refiner=dense_crf --workers 4 --out MASKS
  tag2mask label RUN DATA --out MASKS --shards 16 --shard 0
  tag2mask label RUN DATA method=advcam --out MASKS"""


def run(
    ctx: typer.Context,
    folder: RunArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder of tagged images: COCO format, VOC layout, tags.csv, tags.jsonl or a "
            "folder per class; or WebDataset tar files with tags.",
        ),
    ],
    out: OutOption,
    split: SplitOption = None,
    weights: WeightsOption = "best",
    strict: StrictOption = False,
    workers: WorkersOption = 1,
    skip_unknown_tags: Annotated[
        bool,
        typer.Option(
            "--skip-unknown-tags",
            help="Leave out tags that the run does not know; otherwise they are an error.",
        ),
    ] = False,
    overlays: OverlaysOption = False,
    shards: ShardsOption = None,
    shard: ShardOption = None,
    engine: EngineOption = "local",
) -> None:
    """Write masks of tagged images; their tags choose the classes.

    KEY=VALUE words change the run's inference settings: keys of predict, refiner, data, method and
    backbone. refiner=NAME applies another refiner, refiner=none applies none. method=NAME reads the
    weights with another method: advcam and rib can read those of cam. backbone.stride=8 makes finer
    maps, if the backbone has this key. 'tag2mask list keys RECIPE' explains every key.
    """
    start_early(workers)
    from tag2mask import api

    print_network(folder)
    summary = api.label(
        folder,
        data,
        out,
        split=split,
        overrides=ctx.obj.overrides,
        which=weights,
        strict=strict,
        workers=workers,
        skip_unknown_tags=skip_unknown_tags,
        overlays=overlays,
        shards=shards,
        shard=shard,
        engine=engine,
    )
    print_summary(summary, out, overlays=overlays)
