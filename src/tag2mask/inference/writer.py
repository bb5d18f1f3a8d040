"""Write masks with their class scores; interrupted runs resume where they stopped."""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tag2mask.data.base import Source
from tag2mask.errors import DataError, RunError
from tag2mask.inference.batches import ImageInput
from tag2mask.inference.mask_summary import MaskSummary, summarize_masks
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.shards import SHARDS_FOLDER, Shard, adopt_rows, finish_shard
from tag2mask.inference.workers import predict_in_workers
from tag2mask.io.files import remove_leftovers, visible_names
from tag2mask.io.images import read_image
from tag2mask.io.mask_folder import (
    CLASSES_FILE,
    append_scores,
    describe_classes,
    describe_image,
    read_classes,
    read_skipped,
    score_row,
    tidy_scores,
    write_classes,
    write_skipped,
)
from tag2mask.io.masks import save_mask
from tag2mask.types import ClassSource, ImageProgress, Prediction

MOST_DIFFERENCES = 3
"""Number of settings that a message about other masks names."""
OnImage = Callable[[ImageProgress], object]
"""Called after each image."""


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """What a labeling run did."""

    written: int
    already: int
    """Masks that an earlier run had finished."""
    unreadable: tuple[str, ...]
    """One line for each image that could not be read."""
    masks: MaskSummary
    """What the folder contains now, masks of earlier runs included; of a shard its own masks, until
    all shards are finished."""
    shard: Shard | None = None
    """The part of the images that was labeled; None: all."""
    unfinished: tuple[int, ...] = ()
    """Other shards that are not finished; without any, the records of all are merged."""


class MaskWriter:
    """A folder of masks that were all made with the same settings; see `io.mask_folder`.

    Open it and write into it inside of `io.locks.folder_lock`.
    """

    def __init__(
        self,
        out: Path,
        class_names: Sequence[str],
        class_source: ClassSource,
        settings: Mapping[str, Any],
        inside: Path = Path(),
        shard: Shard | None = None,
    ) -> None:
        """Open a new folder, or one that an earlier run with the same settings left.

        Args:
            out: Created if missing.
            class_names: Foreground names in the order of mask values 1..F.
            class_source: Where the classes come from.
            settings: How the masks are made; a later run must agree, except for the run's path.
            inside: Folder of the masks, relative to `out`.
            shard: The part of the images whose masks are written; its records are its own.

        Raises:
            RunError: If it contains other files or masks made with different settings, or the disk
                refuses.
        """
        self.out, self.inside, self.shard = out, inside, shard
        self.records = out if shard is None else shard.folder(out)
        """Folder of `scores.jsonl` and `skipped.json`."""
        self._masks = out / inside
        open_mask_folder(out, describe_classes(class_names, class_source, settings))
        self.records.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.records)  # of a shard only in its own folder: masks may be millions
        tidy_scores(self.records, self.done)

    def path(self, name: str) -> Path:
        """Path of the mask of an image."""
        return self._masks / f"{name}.png"

    def done(self, name: str) -> bool:
        """Whether the mask of an image is finished; masks appear completely or not at all."""
        try:
            return self.path(name).is_file()
        except OSError:  # the name is too long for a file
            return False

    def write(
        self,
        name: str,
        prediction: Prediction,
        image_path: Path | None = None,
        tags: Sequence[str] | None = None,
    ) -> None:
        """Write one mask and its row of `scores.jsonl`; see `score_row`, `describe_image`.

        Raises:
            DataError: If the name is too long for a file.
            RunError: If the disk refuses.
        """
        try:
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self.path(name).lstat()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise DataError(f"{name}: the name is too long for a file; rename it") from error
            raise RunError(f"{self.path(name)}: cannot be written ({error.strerror})") from error
        described = describe_image(name, image_path, prediction.mask.shape)
        append_scores(self.records, score_row(name, prediction, tags) | described)
        try:
            save_mask(prediction.mask, self.path(name))
        except OSError as error:
            raise RunError(f"{self.path(name)}: cannot be written ({error.strerror})") from error


def open_mask_folder(out: Path, wanted: Mapping[str, Any]) -> None:
    """Write `classes.json`, or check the one that is there; another shard may just do so.

    Args:
        out: Created if missing.
        wanted: From `describe_classes`.

    Raises:
        RunError: If the folder contains other files or masks made with different settings.
    """
    has_others = out.is_dir() and any(name != SHARDS_FOLDER for name in visible_names(out))
    if not (out / CLASSES_FILE).is_file():
        if has_others:
            raise RunError(f"{out}: is not empty and has no {CLASSES_FILE}; choose a new folder")
        write_classes(out, wanted)
    different = _differences(read_classes(out), wanted)
    if different:
        more = len(different) - MOST_DIFFERENCES
        rest = f" and {more} more" if more > 0 else ""
        raise RunError(
            f"{out}: contains masks made with different settings "
            f"({', '.join(different[:MOST_DIFFERENCES])}{rest}); choose another folder or empty "
            "this one"
        )


def label_dataset(
    segmenter: Segmenter,
    source: Source,
    writer: MaskWriter,
    *,
    strict: bool = False,
    workers: int = 1,
    on_image: OnImage | None = None,
) -> WriteSummary:
    """Write masks of tagged images; their tags select the classes.

    Images that cannot be read are recorded, so that training on the masks leaves them out.

    Returns:
        What was written, and what the folder contains now.

    Args:
        segmenter: Makes the masks.
        source: The images with their tags.
        writer: The masks, written in the order of the source.
        strict: Fail at an unreadable image instead of skipping it.
        workers: Processes that make masks; 1 is this one.
        on_image: Called after each image, in this process.

    Raises:
        DataError: If `strict` and an image cannot be read.
        LostProcessError: If a worker process is killed.
    """
    source = copy.copy(source)
    source.reads_masks = False
    index = {name: position for position, name in enumerate(source.names)}

    def read(name: str) -> ImageInput:
        sample = source[index[name]]
        return ImageInput(sample.image, sample.tags, name)

    tags, skipped = _tags_by_name(source), source.skipped
    segmenter = segmenter.with_dataset(source)
    job = _Job(segmenter, source.names, source.image_files, read, "label", tags, skipped)
    return _write_all(job, writer, strict, workers, on_image)


def predict_images(
    segmenter: Segmenter,
    images: Mapping[str, Path],
    writer: MaskWriter,
    *,
    strict: bool = False,
    workers: int = 1,
    on_image: OnImage | None = None,
) -> WriteSummary:
    """Write masks of untagged images; the classifier selects their classes.

    Args:
        segmenter: Makes the masks.
        images: From `named_images`.
        writer: The masks, written in the order of the images.
        strict: Fail at an unreadable image instead of skipping it.
        workers: Processes that make masks; 1 is this one.
        on_image: Called after each image, in this process.

    Raises:
        DataError: If `strict` and an image cannot be read.
        LostProcessError: If a worker process is killed.
    """

    def read(name: str) -> ImageInput:
        return ImageInput(read_image(images[name], segmenter.value_range), None, name)

    job = _Job(segmenter, list(images), images, read, "predict")
    return _write_all(job, writer, strict, workers, on_image)


class _Job(NamedTuple):
    """The images of one command and how to process them."""

    segmenter: Segmenter
    names: Sequence[str]
    files: Mapping[str, Path]
    """Name -> image file, for images that have one."""
    read: Callable[[str], ImageInput]
    verb: str
    tags: Mapping[str, Sequence[str]] | None = None
    """Tags by name; None if the classifier selects the classes."""
    skipped: Sequence[str] = ()
    """Images that the data source left out because they cannot be read."""


def _write_all(
    job: _Job, writer: MaskWriter, strict: bool, workers: int, on_image: OnImage | None
) -> WriteSummary:
    """Segment every image that has no mask yet, with a progress bar."""
    shard = writer.shard
    names = job.names if shard is None else shard.select(job.names)
    missing = [name for name in names if not writer.done(name)]
    images = ((name, _read_or_error(job.read, name)) for name in missing)
    unreadable: list[str] = []
    with progress() as bar, closing(predict_in_workers(job.segmenter, images, workers)) as found:
        task = bar.add_task(job.verb, total=len(missing))
        for done, (name, prediction) in enumerate(found, start=1):
            if isinstance(prediction, Prediction):
                tags = job.tags[name] if job.tags else None
                prediction = _write_or_error(writer, name, prediction, job.files.get(name), tags)
            if not isinstance(prediction, Prediction):
                if strict:
                    raise prediction
                unreadable.append(str(prediction))
            bar.advance(task)
            if on_image is not None:
                made = prediction if isinstance(prediction, Prediction) else None
                on_image(ImageProgress(name, made, done, len(missing)))
    left = [name for name in names if not writer.done(name)]
    if shard is None and len(left) == len(names):
        raise RunError(
            f"{writer.out}: no mask was written, because no image can be read: {unreadable[0]}"
            + (f" (and {len(left) - 1} more)" if len(left) > 1 else "")
        )
    damaged = job.skipped if shard is None else shard.select(job.skipped)
    skipped = {*read_skipped(writer.records), *left, *damaged}
    write_skipped(writer.records, sorted(name for name in skipped if not writer.done(name)))
    unfinished: list[int] = []
    if shard is None:
        adopt_rows(writer.out, job.names, writer.inside)
    else:
        unfinished = finish_shard(writer.out, shard, job.names, writer.inside)
    written, already = len(missing) - len(unreadable), len(names) - len(missing)
    unreadable += [f"{name}: is damaged or not an image" for name in damaged]
    records = writer.records if unfinished else writer.out
    masks = summarize_masks(writer.out, writer.inside, records)
    return WriteSummary(written, already, tuple(unreadable), masks, shard, tuple(unfinished))


def _tags_by_name(source: Source) -> dict[str, list[str]]:
    """Return the tags of each image of a source, as words."""
    return {
        name: [source.class_names[index] for index in row.nonzero()[0]]
        for name, row in zip(source.names, source.tags, strict=True)
    }


def _read_or_error(read: Callable[[str], ImageInput], name: str) -> ImageInput | DataError:
    """Read one image; one that cannot be read does not stop the others."""
    try:
        return read(name)
    except DataError as error:
        return error


def _write_or_error(
    writer: MaskWriter,
    name: str,
    prediction: Prediction,
    image_path: Path | None,
    tags: Sequence[str] | None,
) -> Prediction | DataError:
    """Write one mask; an image whose name is too long does not stop the others."""
    try:
        writer.write(name, prediction, image_path, tags)
    except DataError as error:
        return error
    return prediction


def progress() -> Progress:
    """A progress bar with count and time left on standard error; silent without a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[dim]left[/dim]"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Keys (dotted one level into settings) whose values differ, with both values for settings."""
    names = [key for key in wanted if key != "settings" and found.get(key) != wanted[key]]
    old, new = found.get("settings", {}), wanted["settings"]
    names += [
        f"{key}: {old.get(key)} before, {new.get(key)} now"
        for key in sorted((old.keys() | new.keys()) - {"run"})  # weights have a fingerprint
        if old.get(key) != new.get(key)
    ]
    return names
