"""Score a folder of mask files against a folder of true mask files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tag2mask.data.voc import LIST_FOLDER, MASK_FOLDERS, VOC_CLASSES, listed_images
from tag2mask.errors import DataError, did_you_mean
from tag2mask.evaluation.confusion import (
    ConfusionMatrix,
    Counts,
    Runs,
    pair_counts,
    pair_runs,
)
from tag2mask.evaluation.object_sizes import count_objects, size_quarters
from tag2mask.io.mask_folder import CLASSES_FILE, read_class_names, read_classes
from tag2mask.io.masks import read_indices, read_mask, renumber
from tag2mask.io.text_files import read_text
from tag2mask.types import IGNORE, ClassSource, Mask, Report

CHUNK = 16
"""Number of images that a thread counts before it hands over its counts."""


class MaskPair(NamedTuple):
    """Mask files of one image."""

    truth: Path
    prediction: Path


@dataclass(frozen=True, slots=True)
class _Truth:
    """A folder of true masks, its classes, and the masks to score."""

    folder: Path
    class_names: tuple[str, ...]
    """In the order of the files' values 1.. ."""
    names: tuple[str, ...]
    """Masks to score, sorted."""


class FolderPairs(NamedTuple):
    """The masks of a folder beside their true masks."""

    pairs: Mapping[str, MaskPair]
    """By image name, sorted."""
    class_names: tuple[str, ...]
    """Of the predictions, in the order of their values 1..F."""
    true_classes: int
    """Number of foreground classes of the true masks."""
    table: npt.NDArray[np.uint8]
    """(256,) from values of the true masks to those of the predictions."""
    class_source: ClassSource | None
    settings: Mapping[str, Any]
    """How the predictions were made."""


class FileCounts(NamedTuple):
    """What the files of many images count to."""

    pairs: Counts
    """(256, 256) pixels by true (row) and predicted value (column)."""
    objects: list[Counts]
    """(n, 3) objects of each image, from `count_objects`; empty if not asked for."""


def evaluate_folder(
    predictions: Path,
    truth: Path,
    *,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    limited: bool = False,
    by_size: bool = False,
    workers: int | None = None,
) -> Report:
    """Score a folder of masks against true masks of the same names.

    Args:
        predictions: Folder of PNG masks, with a `classes.json` if tag2mask wrote it.
        truth: A VOC root, a folder of VOC masks, a folder with its own `classes.json`, or a folder
            of masks with the class values of `predictions`. Pixels of classes that `predictions`
            does not have are ignored.
        split: Name of a VOC list, or path of a text file with a name per line. None: the split
            of the predictions if the truth has such a list, else every true mask.
        class_names: Names of the predictions' values 1..F, where there is no `classes.json`.
        limited: Score only images that have a prediction; otherwise a missing one is an error.
        by_size: Also score objects by their true area; see `object_sizes`.
        workers: Threads that read and count; None: one per processor core.

    Raises:
        DataError: If a mask is missing, unreadable, of another size than its true mask, or holds
            an unknown value.
    """
    opened = open_pairs(predictions, truth, split=split, class_names=class_names, limited=limited)
    class_names = opened.class_names
    pairs, threads = list(opened.pairs.values()), workers or os.cpu_count() or 1
    table = opened.table
    counts = count_files(
        pairs, opened.true_classes, len(class_names), threads, table if by_size else None
    )
    renumbered = np.zeros_like(counts.pairs)
    np.add.at(renumbered, table, counts.pairs)
    matrix = ConfusionMatrix(len(class_names) + 1)
    matrix.add_pairs(renumbered)
    settings = dict(opened.settings)
    if settings.get("has_background") is False:
        matrix.drop_background()
    settings |= {"predictions": str(predictions), "truth": str(truth), "true_masks": len(pairs)}
    if split is not None:
        settings["split"] = split
    report = matrix.report(class_names, len(pairs), opened.class_source, settings)
    return replace(report, by_size=size_quarters(counts.objects)) if by_size else report


def open_pairs(
    predictions: Path,
    truth: Path,
    *,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    limited: bool = False,
) -> FolderPairs:
    """Find the true mask of each predicted one; see `evaluate_folder` for the arguments.

    Raises:
        DataError: If a mask is missing, or no mask has a true one.
    """
    folder = read_classes(predictions) if (predictions / CLASSES_FILE).is_file() else {}
    _reject_other_paths(predictions, has_classes=bool(folder))
    settings = dict(folder.get("settings", {}))
    class_names = tuple(class_names or folder.get("classes", ()))
    target = _open_truth(truth, class_names, split, settings.get("split"))
    class_names = class_names or target.class_names
    table = _renumbering(target, class_names)
    names = [n for n in target.names if not limited or (predictions / f"{n}.png").is_file()]
    if not names:
        raise DataError(
            f"{predictions}: has no mask for any of the true masks of {target.folder}"
            f"{_folder_hint(predictions, target)}"
        )
    pairs = {n: MaskPair(target.folder / f"{n}.png", predictions / f"{n}.png") for n in names}
    _reject_missing(list(pairs.values()), predictions, target)
    return FolderPairs(
        pairs,
        class_names,
        len(target.class_names),
        table,
        folder.get("class_source"),
        settings,
    )


def _reject_other_paths(predictions: Path, *, has_classes: bool) -> None:
    """Reject a missing folder, and a run in place of masks."""
    if not predictions.is_dir():
        raise DataError(f"{predictions}: no such folder")
    if not has_classes and (predictions / "recipe.yaml").is_file():
        raise DataError(
            f"{predictions}: is a run, not a folder of masks; write masks first: "
            f"tag2mask label {predictions} DATA --out MASKS"
        )


def count_files(
    pairs: Sequence[MaskPair],
    true_classes: int,
    predicted_classes: int,
    workers: int,
    object_values: npt.NDArray[np.uint8] | None = None,
) -> FileCounts:
    """Count the pixels of all files by true and predicted value, and those of objects if asked for.

    Decoding and counting release the interpreter lock, so threads share the work and no process
    has to start.

    Args:
        pairs: The files.
        true_classes: Number of foreground classes of the true masks.
        predicted_classes: Number of foreground classes of the predicted masks.
        workers: Number of threads.
        object_values: (256,) table from true values to predicted values, to count objects too;
            None: no objects are counted.

    Raises:
        DataError: If a mask is unreadable, of another size than its true mask, or holds a value
            that is neither a class nor 255.
    """

    def count(chunk: Sequence[MaskPair]) -> FileCounts:
        runs = [_read_runs(pair, true_classes, predicted_classes) for pair in chunk]
        if object_values is None:
            return FileCounts(pair_counts(runs), [])
        return FileCounts(pair_counts(runs), [count_objects(one, object_values) for one in runs])

    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(count, chunks))
    counts: Counts = np.sum([part.pairs for part in parts], axis=0)
    if _has_unknown(counts.sum(axis=1), true_classes) or _has_unknown(
        counts.sum(axis=0), predicted_classes
    ):
        for pair in pairs:  # raises an error that names the file
            read_mask(pair.truth, true_classes)
            read_mask(pair.prediction, predicted_classes)
    return FileCounts(counts, [one for part in parts for one in part.objects])


def _open_truth(
    truth: Path, class_names: tuple[str, ...], split: str | None, predicted_split: object
) -> _Truth:
    """Find the true masks, their classes and the masks to score in any of the supported layouts."""
    if not truth.is_dir():
        raise DataError(f"{truth}: no such folder")
    root = truth.parent if truth.name in MASK_FOLDERS else truth
    inner = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    lists = root / LIST_FOLDER
    true_names = read_class_names(root) or VOC_CLASSES
    if truth.name in MASK_FOLDERS:
        folder = truth
    elif inner:
        folder = inner[0]
    elif (truth / CLASSES_FILE).is_file():
        folder, true_names = truth, tuple(read_classes(truth)["classes"])
    elif class_names:
        folder, true_names = truth, class_names
    else:
        raise DataError(
            f"{truth}: nothing says which class a mask value is; write {truth / CLASSES_FILE} with "
            '{"classes": ["cat", "dog"]}, the names of values 1, 2, ... in order'
        )
    files = folder.rglob("*.png")
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)
    has_list = isinstance(predicted_split, str) and (lists / f"{predicted_split}.txt").is_file()
    if split is None and has_list:
        split = str(predicted_split)
    if split is not None:
        listed = _read_split(lists, split)
        names = [name for name in names if name in listed]
    if not names:
        raise DataError(f"{folder}: holds no masks" + (f" of the list '{split}'" if split else ""))
    return _Truth(folder, true_names, tuple(names))


def _read_split(lists: Path, split: str) -> frozenset[str]:
    """Read the names of a list, given by its name or by the path of a text file."""
    path = Path(split) if split.endswith(".txt") else lists / f"{split}.txt"
    if not path.is_file():
        known = sorted(file.stem for file in lists.glob("*.txt"))
        advice = "give the path of a text file with one image name per line"
        available = f" Known: {', '.join(known)}" if known else f" There are no lists; {advice}"
        raise DataError(f"{path}: no such list.{did_you_mean(split, known)}{available}")
    lines = read_text(path, DataError).splitlines()
    return frozenset(listed_images(lines))


def _renumbering(target: _Truth, class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the (256,) table from the truth's values to the predictions' values."""
    for name in class_names:
        if name not in target.class_names:
            raise DataError(
                f"{target.folder}: the true masks have no class '{name}' of the predictions."
                f"{did_you_mean(name, target.class_names)} Known: {', '.join(target.class_names)}"
            )
    return renumber(target.class_names, class_names)


def _folder_hint(predictions: Path, target: _Truth) -> str:
    """Return what to do if masks and true masks have the same names in other folders; or nothing.

    `lane1/a.png` and `a.png` are masks of different images.
    """
    files = (path.relative_to(predictions) for path in predictions.rglob("*.png"))
    predicted = {path.with_suffix("") for path in files}
    true = {Path(name) for name in target.names}
    if predicted & true:
        return ""
    by_name = {path.name: path for path in sorted(predicted, reverse=True)}
    for path in sorted(true):
        other = by_name.get(path.name)
        if other is not None:
            return (
                f"; the folders differ: {predictions} has {other}.png where {target.folder} has "
                f"{path}.png. Put both into the same sub-folders, or score one sub-folder at a time"
            )
    return ""


def _reject_missing(pairs: Sequence[MaskPair], predictions: Path, target: _Truth) -> None:
    """Raise DataError if a prediction is missing."""
    for true_path, path in pairs:
        if not path.is_file():
            advice = _folder_hint(predictions, target) or (
                f" (one of {len(pairs)}); predict it too, or score only the existing masks with "
                "--limited"
            )
            raise DataError(f"{path}: no prediction for the true mask {true_path}{advice}")


def _read_runs(pair: MaskPair, true_classes: int, predicted_classes: int) -> Runs:
    """Read both masks of one image."""
    true = _read_values(pair.truth, true_classes)
    prediction = _read_values(pair.prediction, predicted_classes)
    if true.shape != prediction.shape:
        raise DataError(
            f"{pair.prediction} is {prediction.shape[1]} x {prediction.shape[0]} px, {pair.truth} "
            f"is {true.shape[1]} x {true.shape[0]} px; masks must have the size of their image"
        )
    return pair_runs(true, prediction)


def _read_values(path: Path, num_foreground: int) -> Mask:
    """Read a mask; 8-bit values are checked later, in the counts of all files together."""
    values = read_indices(path)
    return values if values.dtype == np.uint8 else read_mask(path, num_foreground)


def _has_unknown(pixels: Counts, num_foreground: int) -> bool:
    """Return whether there are pixels of a value that is neither a class nor 255."""
    return bool(pixels[num_foreground + 1 : IGNORE].any())
