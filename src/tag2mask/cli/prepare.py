"""Prepare VOC 2012 or COCO 2014: build lists, check counts and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tag2mask.errors import DataError

if TYPE_CHECKING:  # imports image libraries, which --help need not load
    from tag2mask.data.published_sets import SetReport

EXAMPLES = """\
  tag2mask prepare voc VOCdevkit/VOC2012 --sbd benchmark_RELEASE
  tag2mask prepare voc VOCdevkit/VOC2012
  tag2mask prepare coco MSCOCO"""


def run(
    name: Annotated[
        Literal["voc", "coco"], typer.Argument(metavar="voc|coco", help="The data set.")
    ],
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Its folder: VOCdevkit/VOC2012, or COCO's.")
    ],
    sbd: Annotated[
        Path | None,
        typer.Option(
            "--sbd",
            metavar="DIR",
            help="Folder of the Semantic Boundaries Dataset; builds the list train_aug and "
            "SegmentationClassAug (voc only).",
        ),
    ] = None,
) -> None:
    """Prepare VOC 2012 or COCO 2014: build lists, check counts and files.

    Nothing is downloaded. Whatever differs from the sets that published scores use ends the command
    with exit code 2. Odd outlines of COCO are warnings.
    """
    if name == "coco":
        if sbd is not None:
            raise DataError("--sbd: belongs to 'prepare voc'; COCO needs no other data set")
        _prepare_coco(root)
    else:
        _prepare_voc(root, sbd)


def summary_lines(root: Path, report: SetReport) -> Iterator[str]:
    """Yield lines that summarize a set."""
    sizes = ", ".join(f"{name} {size:,}" for name, size in report.sizes.items())
    yield f"{root}: {sizes} images, as published"
    masks = ", ".join(f"{name} {size:,}" for name, size in report.masks.items())
    yield f"masks: {masks}"


def _prepare_voc(root: Path, sbd: Path | None) -> None:
    from tag2mask.data.published_sets import VOC_SIZES, check_voc
    from tag2mask.data.train_aug import AUGMENTED_MASKS, build_train_aug
    from tag2mask.data.voc import voc_root
    from tag2mask.inference.writer import progress

    root = voc_root(root)
    if sbd is not None:
        with progress() as bar:
            built = build_train_aug(
                root, sbd, VOC_SIZES, lambda names: bar.track(names, description="masks")
            )
        print(
            f"{AUGMENTED_MASKS}: {built.converted:,} masks from SBD, {built.official:,} from VOC, "
            f"{built.already:,} were there already"
        )
    report = check_voc(root)
    _print_report(root, report)
    print(f"ready: tag2mask train rml/voc_mitb1 data.root={root} --out RUN")


def _prepare_coco(root: Path) -> None:
    from tag2mask.data.published_sets import check_coco

    report = check_coco(root)
    _print_report(root, report)
    print(f"ready: tag2mask train rml/coco_mitb1 data.root={root} --out RUN")


def _print_report(root: Path, report: SetReport) -> None:
    print("\n".join(summary_lines(root, report)))
    for line in report.warnings:
        print(f"warning: {line}")
