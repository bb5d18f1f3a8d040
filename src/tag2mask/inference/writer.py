"""Masks onto the disk: indexed PNG, classes file, class scores; safe to start again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tag2mask.data.base import Source
from tag2mask.data.pseudo_labels import write_skipped
from tag2mask.errors import DataError, RunError
from tag2mask.inference.segmenter import InferenceOutput, Segmenter
from tag2mask.inference.workers import predict_in_workers
from tag2mask.io.files import write_text
from tag2mask.io.images import list_images, read_image
from tag2mask.io.masks import save_mask
from tag2mask.io.palette import voc_palette
from tag2mask.types import BACKGROUND, IGNORE, ClassSource, Prediction

CLASSES_FILE = "classes.json"
SCORES_FILE = "scores.jsonl"


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """What a labeling run did."""

    written: int
    already: int
    """Masks found finished from an earlier start."""
    unreadable: tuple[str, ...]
    """One line for each image that could not be read."""


class MaskWriter:
    """A folder of masks that all were made in the same way.

    Files: `NAME.png` for each image (folders in NAME kept), `classes.json` with the class of every
    mask value and all settings, `scores.jsonl` with the class probabilities of each image.
    """

    def __init__(
        self,
        out: Path,
        class_names: Sequence[str],
        class_source: ClassSource,
        settings: Mapping[str, Any],
    ) -> None:
        """Open a new or an own folder.

        Args:
            out: Made if missing.
            class_names: Foreground names in the order of mask values 1..F.
            class_source: Who chooses the classes.
            settings: How the masks are made; a later start must agree, but for the run's path.

        Raises:
            RunError: If it holds other files or masks of other settings, or the disk refuses.
        """
        self.out = out
        self._describe(class_names, class_source, settings)
        self._scores = _whole_rows(out / SCORES_FILE, self.done)
        write_text(
            out / SCORES_FILE, "".join(f"{json.dumps(row)}\n" for row in self._scores.values())
        )

    def path(self, name: str) -> Path:
        """Where the mask of an image goes."""
        return self.out / f"{name}.png"

    def done(self, name: str) -> bool:
        """Whether the mask of an image is finished; masks appear whole or not at all."""
        return self.path(name).is_file()

    def write(self, name: str, prediction: Prediction) -> None:
        """Write one mask and its class scores.

        Raises:
            RunError: If the disk refuses.
        """
        row = {"name": name, "scores": {k: round(v, 6) for k, v in prediction.scores.items()}}
        try:
            with (self.out / SCORES_FILE).open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(row, ensure_ascii=False)}\n")
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            save_mask(prediction.mask, self.path(name))
        except OSError as error:
            raise RunError(f"{self.path(name)}: cannot be written ({error.strerror})") from error

    def _describe(
        self, class_names: Sequence[str], class_source: ClassSource, settings: Mapping[str, Any]
    ) -> None:
        """Write `classes.json`, or check the one that is there."""
        wanted = {
            "classes": list(class_names),
            "background": BACKGROUND,
            "ignore": IGNORE,
            "class_source": class_source,
            "settings": dict(settings),
            "palette": [voc_palette()[value].tolist() for value in range(len(class_names) + 1)],
        }
        wanted = json.loads(json.dumps(wanted))  # tuples become lists, as they will be read back
        described = self.out / CLASSES_FILE
        if described.is_file():
            found = read_classes(self.out)
            different = ", ".join(_differences(found, wanted))
            if different:
                raise RunError(
                    f"{self.out}: holds masks made otherwise ({different}); "
                    "choose another folder or empty this one"
                )
            return
        if self.out.is_dir() and any(self.out.iterdir()):
            raise RunError(
                f"{self.out}: is not empty and holds no {CLASSES_FILE}; choose a new folder"
            )
        write_text(described, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")


def read_classes(folder: Path) -> dict[str, Any]:
    """Read the `classes.json` of a mask folder.

    Raises:
        DataError: If it is missing or damaged.
    """
    path = folder / CLASSES_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); it tells the class of each mask value"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: is no readable JSON ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("classes"), list):
        raise DataError(f"{path}: needs a mapping with a list 'classes'")
    return found


def label_dataset(
    segmenter: Segmenter,
    source: Source,
    writer: MaskWriter,
    *,
    strict: bool = False,
    workers: int = 1,
) -> WriteSummary:
    """Write masks of tagged images; their tags choose the classes (class source `tags`).

    Images that cannot be read are noted, so that who learns from the masks does without them.

    Args:
        segmenter: Examines the images in this process.
        source: The images with their tags.
        writer: The masks, written in the order of the source.
        strict: Refuse an unreadable image in place of counting it.
        workers: Processes that refine and cut masks; 1: all in this one.

    Raises:
        DataError: If `strict` and an image cannot be read.
        RunError: If a worker process is killed.
    """
    index = {name: position for position, name in enumerate(source.names)}

    def infer(name: str) -> InferenceOutput:
        sample = source[index[name]]
        return segmenter.infer(sample.image, sample.tags, name=name)

    job = _Job(segmenter, source.names, infer, "label")
    with segmenter.with_dataset(source):
        written = _write_all(job, writer, strict, workers)
    write_skipped(writer.out, [name for name in source.names if not writer.done(name)])
    return written


def predict_paths(
    segmenter: Segmenter,
    paths: Sequence[Path],
    writer: MaskWriter,
    *,
    strict: bool = False,
    workers: int = 1,
) -> WriteSummary:
    """Write masks of untagged images, given singly or by folder (class source `classifier`).

    Args:
        segmenter: Examines the images in this process.
        paths: Images and folders of images.
        writer: The masks, written in the order of `named_images`.
        strict: Refuse an unreadable image in place of counting it.
        workers: Processes that refine and cut masks; 1: all in this one.

    Raises:
        DataError: If two images would get the same mask file, or `strict` and one cannot be read.
        RunError: If a worker process is killed.
    """
    images = named_images(paths)

    def infer(name: str) -> InferenceOutput:
        return segmenter.infer(read_image(images[name]), name=name)

    return _write_all(_Job(segmenter, list(images), infer, "predict"), writer, strict, workers)


def named_images(paths: Sequence[Path]) -> dict[str, Path]:
    """Give each image its mask name: the path within the folder given, without suffix.

    Raises:
        DataError: If a path is missing, there is no image, or two images get the same name.
    """
    affinity_maps: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            affinity_maps += [
                (image.relative_to(path).with_suffix("").as_posix(), image)
                for image in list_images(path)
            ]
        elif path.is_file():
            affinity_maps.append((path.stem, path))
        else:
            raise DataError(f"{path}: no such image or folder")
    if not affinity_maps:
        raise DataError(f"no images in {', '.join(map(str, paths))}")
    for name, count in Counter(name for name, _ in affinity_maps).items():
        if count > 1:
            same = ", ".join(str(image) for found, image in affinity_maps if found == name)
            raise DataError(f"{same}: would all write {name}.png; rename or predict them apart")
    return dict(affinity_maps)


class _Job(NamedTuple):
    """What one start of a command has to do."""

    segmenter: Segmenter
    names: Sequence[str]
    infer: Callable[[str], InferenceOutput]
    verb: str


def _write_all(job: _Job, writer: MaskWriter, strict: bool, workers: int) -> WriteSummary:
    """Segment every image that has no mask yet, showing progress."""
    missing = [name for name in job.names if not writer.done(name)]
    images = ((name, _infer_or_error(job.infer, name)) for name in missing)
    unreadable: list[str] = []
    with progress() as bar, closing(predict_in_workers(job.segmenter, images, workers)) as found:
        task = bar.add_task(job.verb, total=len(missing))
        for name, prediction in found:
            if isinstance(prediction, Prediction):
                writer.write(name, prediction)
            elif strict:
                raise prediction
            else:
                unreadable.append(str(prediction))
            bar.advance(task)
    done = len(missing) - len(unreadable)
    return WriteSummary(done, len(job.names) - len(missing), tuple(unreadable))


def _infer_or_error(
    infer: Callable[[str], InferenceOutput], name: str
) -> InferenceOutput | DataError:
    """Look at one image; an image that cannot be read does not stop those that are on their way."""
    try:
        return infer(name)
    except DataError as error:
        return error


def progress() -> Progress:
    """A progress line with count and time left, on standard error; silent if no terminal."""
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


def _whole_rows(path: Path, done: Callable[[str], bool]) -> dict[str, dict[str, Any]]:
    """Rows of finished masks by name; an interrupted last line and repeats are dropped."""
    rows: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if done(row["name"]):
            rows[row["name"]] = row
    return rows


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Keys (dotted one level into settings) whose values differ, with both values for settings."""
    names = [key for key in wanted if key != "settings" and found.get(key) != wanted[key]]
    old, new = found.get("settings", {}), wanted["settings"]
    names += [
        f"{key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted((old.keys() | new.keys()) - {"run"})  # weights have a fingerprint
        if old.get(key) != new.get(key)
    ]
    return names
