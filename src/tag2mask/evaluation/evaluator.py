"""Score masks against true masks: folders of files, or a network on a data source."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table

from tag2mask.data.base import Source
from tag2mask.data.indexed_png import read_indexed_png
from tag2mask.data.pseudo_labels import PseudoLabelDataset
from tag2mask.data.voc import LIST_FOLDER, MASK_FOLDERS, VOC_CLASSES
from tag2mask.errors import DataError, did_you_mean
from tag2mask.evaluation.confusion import (
    ConfusionMatrix,
    Counts,
    Runs,
    pair_counts,
    pair_runs,
)
from tag2mask.evaluation.metrics import mean_average_precision
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import write_text
from tag2mask.io.mask_folder import CLASSES_FILE, read_class_names, read_classes
from tag2mask.io.masks import read_mask, renumber
from tag2mask.types import IGNORE, ClassSource, Mask, Report

PORTION = 16
"""Images that a thread counts before it hands its counts over."""


class MaskPair(NamedTuple):
    """Files of one image."""

    truth: Path
    prediction: Path


@dataclass(frozen=True, slots=True)
class _Truth:
    """A folder of true masks: where, in whose numbering, and which of them count."""

    folder: Path
    known: tuple[str, ...]
    """Class names in the order of the files' values 1.. ."""
    names: tuple[str, ...]
    """Masks to score, sorted."""


def evaluate_folder(
    predictions: Path,
    truth: Path,
    *,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    limited: bool = False,
    workers: int | None = None,
) -> Report:
    """Score a folder of masks against true masks of the same names.

    Args:
        predictions: Folder of PNG masks, with a `classes.json` if tag2mask wrote it.
        truth: A VOC root, a folder of VOC masks, a folder with its own `classes.json`, or a folder
            of masks in the numbering of `predictions`. Pixels of classes that `predictions` do not
            know are ignored.
        split: Name of a VOC list, or path of a text file with a name per line; None takes the split
            that the predictions were made for if the truth has such a list, else every true mask.
        class_names: Names of the predictions' values 1..F, where there is no `classes.json`.
        limited: Score only images that have a prediction, in place of refusing a missing one.
        workers: Threads that read and count; None: as many as there are processor cores.

    Raises:
        DataError: If a mask is missing, unreadable, of another size than its twin or holds an
            unknown value.
    """
    described = read_classes(predictions) if (predictions / CLASSES_FILE).is_file() else {}
    if not predictions.is_dir():
        raise DataError(f"{predictions}: no such folder")
    settings = dict(described.get("settings", {}))
    names = tuple(class_names or described.get("classes", ()))
    target = _open_truth(truth, names, split, settings.get("split"))
    names = names or target.known
    table = _renumbering(target, names)
    chosen = [n for n in target.names if not limited or (predictions / f"{n}.png").is_file()]
    if not chosen:
        raise DataError(f"{predictions}: has no mask for any of the true masks of {target.folder}")
    pairs = [MaskPair(target.folder / f"{n}.png", predictions / f"{n}.png") for n in chosen]
    _reject_missing(pairs)
    counts = count_files(pairs, len(target.known), len(names), workers or os.cpu_count() or 1)
    renumbered = np.zeros_like(counts)
    np.add.at(renumbered, table, counts)
    matrix = ConfusionMatrix(len(names) + 1)
    matrix.add_pairs(renumbered)
    settings |= {
        "predictions": str(predictions),
        "truth": str(truth),
        "true_masks": len(chosen),
    }
    if split is not None:
        settings["split"] = split
    return _report(matrix, names, len(chosen), described.get("class_source"), settings)


def evaluate_pseudo_labels(predictions: Path, source: Source) -> Report:
    """Score a folder of masks, as `label` wrote it, against the masks of a data source.

    Args:
        predictions: Has a mask for each image of the source, but for unreadable ones.
        source: Has masks.

    Raises:
        DataError: If the source has no masks, or a prediction is missing, unreadable or of another
            size than its image.
    """
    if not source.has_masks:
        raise DataError("these images come without masks: nothing to score against")
    described = read_classes(predictions)
    matrix = ConfusionMatrix(len(source.class_names) + 1)
    found = PseudoLabelDataset(source, predictions)
    place = {name: index for index, name in enumerate(source.names)}
    for index, name in enumerate(found.names):
        truth, prediction = source[place[name]].mask, found[index].mask
        if truth is not None and prediction is not None:
            matrix.update(truth, prediction)
    settings = {**described.get("settings", {}), "predictions": str(predictions)}
    return _report(matrix, source.class_names, len(found), described.get("class_source"), settings)


def evaluate_source(
    segmenter: Segmenter, source: Source, class_source: ClassSource, limit: int | None = None
) -> Report:
    """Segment the images of a source and score them against its masks, nothing written.

    Args:
        segmenter: May be in training; its mode is put back.
        source: Has masks.
        class_source: `oracle` gives the network the true tags.
        limit: Most images to look at, spread evenly over the source.

    Raises:
        DataError: If the source has no masks.
    """
    if not source.has_masks:
        raise DataError("these images come without masks: nothing to score against")
    matrix = ConfusionMatrix(len(source.class_names) + 1)
    chosen = spread_indices(len(source), limit)
    with segmenter.with_dataset(source):
        for index in chosen:
            sample = source[index]
            tags = sample.tags if class_source == "tags" else None
            prediction = segmenter.segment(sample.image, tags, name=sample.name)
            if sample.mask is not None:
                matrix.update(sample.mask, prediction.mask)
    return _report(
        matrix,
        source.class_names,
        len(chosen),
        class_source,
        {**segmenter.settings(class_source), "limit": limit},
    )


def tag_map(segmenter: Segmenter, source: Source, limit: int | None = None) -> float:
    """Mean average precision of the class probabilities against the tags, from scale 1 alone.

    Args:
        segmenter: May be in training; its mode is put back.
        source: Masks are not needed.
        limit: Most images to look at, spread evenly over the source.

    Returns:
        In [0, 1]; NaN if no class is shown by any image.
    """
    chosen = spread_indices(len(source), limit)
    scores = [list(segmenter.class_scores(source[index].image).values()) for index in chosen]
    return mean_average_precision(np.array(scores), source.tags[chosen])


def spread_indices(length: int, limit: int | None) -> list[int]:
    """Choose at most `limit` of `length` positions, evenly spread, first and last among them."""
    if limit is None or limit >= length:
        return list(range(length))
    return sorted({int(position) for position in np.linspace(0, length - 1, limit).round()})


def report_values(report: Report) -> dict[str, Any]:
    """A report as plain values for JSON; undefined scores become None."""
    values = asdict(report)
    values["iou"] = [None if math.isnan(value) else value for value in report.iou]
    values["miou"] = None if math.isnan(report.miou) else report.miou
    values["settings"] = json.loads(json.dumps(dict(report.settings), default=str))
    return values


def save_report(report: Report, path: Path) -> None:
    """Write a report as JSON, whole or not at all.

    Raises:
        RunError: If the disk refuses.
    """
    write_text(path, json.dumps(report_values(report), indent=1, ensure_ascii=False) + "\n")


def report_table(report: Report) -> Table:
    """Per-class IoU for the terminal, with what one must know to compare it."""
    class_source = (
        f"classes from {report.class_source}" if report.class_source else "classes from unknown"
    )
    told = {key: report.settings.get(key) for key in ("split", "scales", "flip", "background")}
    parts = [f"{key} {value}" for key, value in told.items() if value is not None]
    refiner = report.settings.get("refiner")
    parts += [f"refiner {refiner['name']}"] if isinstance(refiner, dict) else []
    caption = ", ".join([f"{report.images} images", class_source, *parts])
    table = Table("class", caption=caption, caption_justify="left", min_width=48)
    table.add_column("IoU", justify="right")
    for name, value in zip(("background", *report.class_names), report.iou, strict=True):
        table.add_row(name, "-" if math.isnan(value) else f"{value:.3f}")
    table.add_section()
    table.add_row("mean", "-" if math.isnan(report.miou) else f"{report.miou:.3f}", style="bold")
    return table


def _report(
    matrix: ConfusionMatrix,
    class_names: Sequence[str],
    images: int,
    class_source: ClassSource | None,
    settings: dict[str, Any],
) -> Report:
    iou = tuple(float(value) for value in matrix.iou())
    return Report(tuple(class_names), iou, matrix.miou(), images, class_source, settings)


def _open_truth(
    truth: Path, classes: tuple[str, ...], split: str | None, made_for: object
) -> _Truth:
    """Find out what kind of folder the truth is."""
    if not truth.is_dir():
        raise DataError(f"{truth}: no such folder")
    root = truth.parent if truth.name in MASK_FOLDERS else truth
    inner = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    lists = root / LIST_FOLDER
    known = read_class_names(root) or VOC_CLASSES
    if truth.name in MASK_FOLDERS:
        folder = truth
    elif inner:
        folder = inner[0]
    elif (truth / CLASSES_FILE).is_file():
        folder, known = truth, tuple(read_classes(truth)["classes"])
    elif classes:
        folder, known = truth, classes
    else:
        raise DataError(
            f"{truth}: no {CLASSES_FILE} here or beside the predictions; give the class names"
        )
    found = folder.rglob("*.png")
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in found)
    if split is None and isinstance(made_for, str) and (lists / f"{made_for}.txt").is_file():
        split = made_for
    if split is not None:
        listed = _read_split(lists, split)
        names = [name for name in names if name in listed]
    if not names:
        raise DataError(f"{folder}: holds no masks" + (f" of the list '{split}'" if split else ""))
    return _Truth(folder, known, tuple(names))


def _read_split(lists: Path, split: str) -> frozenset[str]:
    """Names of a list, by list name or by path of a text file."""
    path = Path(split) if split.endswith(".txt") else lists / f"{split}.txt"
    if not path.is_file():
        known = sorted(found.stem for found in lists.glob("*.txt"))
        shown = f" Known: {', '.join(known)}" if known else ""
        raise DataError(f"{path}: no such list.{did_you_mean(split, known)}{shown}")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return frozenset(line.split()[0] for line in lines if line.strip())


def _renumbering(target: _Truth, names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """(256,) table from the truth's values to the predictions'."""
    for name in names:
        if name not in target.known:
            raise DataError(
                f"{target.folder}: the predictions' class '{name}' is unknown here."
                f"{did_you_mean(name, target.known)} Known: {', '.join(target.known)}"
            )
    return renumber(target.known, names)


def _reject_missing(pairs: Sequence[MaskPair]) -> None:
    for true_path, path in pairs:
        if not path.is_file():
            raise DataError(
                f"{path}: no prediction for the true mask {true_path} (one of {len(pairs)}); "
                "predict it too, or score only what there is with --limited"
            )


def count_files(pairs: Sequence[MaskPair], known: int, found: int, workers: int) -> Counts:
    """Count the pixels of all files by true (row) and predicted value (column), (256, 256).

    Decoding and counting release the interpreter lock, so that threads share the work, and no
    process has to be started.

    Args:
        pairs: The files.
        known: Number of foreground classes of the true masks.
        found: That of the predictions.
        workers: Number of threads.

    Raises:
        DataError: If a mask is unreadable, of another size than its twin or holds another value.
    """

    def count(some: Sequence[MaskPair]) -> Counts:
        return pair_counts([_runs(pair, known, found) for pair in some])

    portions = [pairs[at : at + PORTION] for at in range(0, len(pairs), PORTION)]
    with ThreadPoolExecutor(workers) as pool:
        counts: Counts = np.sum(list(pool.map(count, portions)), axis=0)
    if _strange(counts.sum(axis=1), known) or _strange(counts.sum(axis=0), found):
        for true_path, path in pairs:  # these refuse the file that is at fault, by name
            read_mask(true_path, known)
            read_mask(path, found)
    return counts


def _runs(pair: MaskPair, known: int, found: int) -> Runs:
    """Read two masks of one image."""
    true, prediction = _values(pair.truth, known), _values(pair.prediction, found)
    if true.shape != prediction.shape:
        raise DataError(
            f"{pair.prediction} is {prediction.shape[1]} x {prediction.shape[0]} px, {pair.truth} "
            f"is {true.shape[1]} x {true.shape[0]} px; masks must have the size of their image"
        )
    return pair_runs(true, prediction)


def _values(path: Path, num_foreground: int) -> Mask:
    """Read a mask; values of the usual kind of file are checked later, in the counts."""
    values = read_indexed_png(path)
    return read_mask(path, num_foreground) if values is None else values


def _strange(pixels: Counts, num_foreground: int) -> bool:
    """Whether there are pixels of a value that is neither a class nor 255."""
    return bool(pixels[num_foreground + 1 : IGNORE].any())
