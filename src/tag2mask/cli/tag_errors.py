"""What `check RUN` prints: images whose tags are probably wrong or missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tag2mask.errors import printable

if TYPE_CHECKING:  # imports torch, which --help need not load
    from tag2mask.evaluation.tag_errors import SuspiciousImage, TagErrors

SHOWN = 20
"""Number of images that the command prints; the JSON file has all of them."""


def check_tags(run: str, data: Path | None, json_file: Path | None = None) -> None:
    """Print the images whose tags a run contradicts, and write all of them as JSON.

    Args:
        run: Run folder, or a hub id.
        data: Folder of tagged images; None: the images that the run trained on.
        json_file: Receives every image with its score; None writes nothing.

    Raises:
        DataError: If the images or their tags cannot be used.
        RunError: If the run has no weights, or does not say which images it trained on.
    """
    from tag2mask import plugins
    from tag2mask.api import open_run, open_source
    from tag2mask.errors import RunError
    from tag2mask.evaluation.tag_errors import find_tag_errors
    from tag2mask.inference.writer import progress
    from tag2mask.io.files import write_text

    segmenter = open_run(run, {})
    config = segmenter.recipe.data
    if data is not None:
        source, _ = open_source(segmenter.recipe, data, None, {})
    elif config.root is None:
        raise RunError(f"{run}: trained on no folder; give the images: tag2mask check {run} DATA")
    else:
        source = plugins.load("data", config.name)(config, "train")
    source.reads_masks = False
    with progress() as bar:
        task = bar.add_task("check", total=len(source))
        errors = find_tag_errors(segmenter, source, lambda: bar.advance(task))
    print("\n".join(map(printable, tag_error_lines(errors))))
    if json_file is not None:
        rows = [image._asdict() for image in errors.images]
        write_text(json_file, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        print(f"all images, most suspicious first: {json_file}")


def tag_error_lines(errors: TagErrors) -> Iterator[str]:
    """Yield the lines about suspicious images, most suspicious first."""
    for line in errors.unreadable:
        yield f"skipped: {line}"
    flagged, images = errors.flagged, len(errors.images)
    yield (
        f"{len(flagged)} of {images} images have a tag that is probably wrong or missing, judged "
        f"by classifiers that did not train on them (mean average precision {errors.tag_map:.2f})"
    )
    for image in flagged[:SHOWN]:
        yield f"  {image.score:.2f}  {image.name}: {_reasons(image)}"
    if len(flagged) > SHOWN:
        yield f"  and {len(flagged) - SHOWN} more; --json FILE lists all images"


def _reasons(image: SuspiciousImage) -> str:
    parts = []
    if image.wrong:
        parts.append(f"probably not {_listed(image.wrong)}")
    if image.missing:
        parts.append(f"probably shows {_listed(image.missing)}")
    return ", ".join(parts)


def _listed(tags: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} (probability {prob:.2f})" for name, prob in tags)
