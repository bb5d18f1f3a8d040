"""Write masks of untagged images; the classifier chooses the classes."""

from __future__ import annotations

import shlex
import sys
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
    StrictOption,
    WeightsOption,
    WorkersOption,
    print_network,
    print_summary,
)
from tag2mask.cli.launch import own_shard
from tag2mask.errors import Tag2MaskError
from tag2mask.inference.early_start import start_early

__all__ = ["EXAMPLES", "KEY_SECTIONS", "SHARES_WORK", "run"]
SHARES_WORK = True
EXAMPLES = """\
  tag2mask predict RUN image.jpg --out MASKS
  tag2mask predict RUN IMAGES more.png predict.class_threshold=0.7 --out MASKS
  tag2mask predict RUN IMAGES predict.scales=1.0,0.5 refiner=none --out MASKS
  tag2mask predict RUN --list images.txt --out MASKS --shards 16 --shard 0
  tag2mask predict RUN VOCdevkit/VOC2012 --voc-server test --out SUBMISSION"""


ImagesArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="IMAGE", help="Images and folders of images, or WebDataset tar files."),
]
ListOption = Annotated[
    Path | None,
    typer.Option(
        "--list",
        metavar="FILE",
        help="Text file of images, one path per line, relative to its folder.",
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--voc-server",
        metavar="LIST",
        help="Predict the images of this list, usually test, of the VOC folder IMAGE, and "
        "write the masks as VOC's evaluation server expects them.",
    ),
]


def run(
    ctx: typer.Context,
    folder: RunArgument,
    out: OutOption,
    images: ImagesArgument = None,
    listed: ListOption = None,
    weights: WeightsOption = "best",
    strict: StrictOption = False,
    workers: WorkersOption = 1,
    voc_server: ServerOption = None,
    overlays: OverlaysOption = False,
    shards: ShardsOption = None,
    shard: ShardOption = None,
    engine: EngineOption = "local",
) -> None:
    """Write masks of untagged images; the classifier chooses the classes.

    KEY=VALUE words change the run's inference settings: keys of predict, refiner, data, method and
    backbone. refiner=NAME applies another refiner, refiner=none applies none. method=NAME reads the
    weights with another method: advcam and rib can read those of cam. backbone.stride=8 makes finer
    maps, if the backbone has this key. 'tag2mask list keys RECIPE' explains every key.
    """
    start_early(workers)
    from tag2mask import api
    from tag2mask.io.image_inputs import ignored_files

    if not images and listed is None:
        raise Tag2MaskError("missing argument 'IMAGE' or --list (see: tag2mask predict --help)")
    images = images or []
    shards, shard = own_shard(shards, shard)
    print_network(folder)
    summary = api.predict(
        folder,
        images,
        out,
        overrides=ctx.obj.overrides,
        which=weights,
        strict=strict,
        workers=workers,
        overlays=overlays,
        listed=listed,
        voc_server=voc_server,
        shards=shards,
        shard=shard,
        engine=engine,
    )
    for line in ignored_files(images):
        print(f"not read: {line}", file=sys.stderr)
    print_summary(summary, out, overlays=overlays)
    if voc_server is not None and not summary.unfinished:
        print(f"to upload: tar -czf results.tgz -C {shlex.quote(str(out))} results")
