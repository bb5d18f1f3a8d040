"""The functions of the package `tag2mask`: train a recipe, write masks, score masks.

Each does what the command of the same name does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tag2mask import pipeline, plugins
from tag2mask.checkpoint import stage_folder
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import Recipe, read_yaml, recipe_path
from tag2mask.data.base import Source
from tag2mask.data.validation import layout_of
from tag2mask.errors import RunError
from tag2mask.evaluation.folders import evaluate_folder
from tag2mask.evaluation.tuning import Tuning, tune_segmenter
from tag2mask.inference.run import Which
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.tuned import undo_tuned, write_tuned
from tag2mask.inference.voc_server import SERVER_FOLDER, reject_other_classes, server_images
from tag2mask.inference.writer import MaskWriter, WriteSummary, label_dataset, predict_paths
from tag2mask.types import Report

Overrides = Mapping[str, object]
"""Dotted recipe key -> value, such as `{"optim.steps": 300, "predict.scales": [1.0, 0.5]}`."""


def train(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    overrides: Overrides | None = None,
    resume: bool = False,
    stage: str | None = None,
    notify: Callable[[str], object] = lambda line: None,
) -> Path:
    """Train a recipe into a run folder; of a recipe with stages, run all of them or one.

    Args:
        recipe: Name of a bundled recipe such as `rml/synthetic_tiny`, path of a YAML file, or a
            recipe.
        out: Run folder. Without stages: new or empty unless resuming.
        overrides: Values for keys of the recipe.
        resume: Resume the run in `out`.
        stage: Run this stage only; the stages that it needs must be finished.
        notify: Receives one line of text about each stage.

    Returns:
        The run folder.

    Raises:
        RecipeError: If the recipe, an override or the stage is invalid.
        DataError: If the data cannot be used.
        WeightsError: If weights cannot be used.
        RunError: If the folder cannot be used, a loss is not finite, or a signal stopped the run.
        MissingExtraError: If the extra `train` is not installed.

    Example:
        >>> import tempfile
        >>> import tag2mask
        >>> small = {"data.count": 4, "data.val_count": 2, "optim.steps": 2, "run.workers": 0}
        >>> run = tag2mask.train("cam/synthetic_tiny", tempfile.mkdtemp(), overrides=small)
        >>> sorted(path.name for path in (run / "weights").iterdir())
        ['best.safetensors', 'last.safetensors']
    """
    raw: object
    if isinstance(recipe, Recipe):
        raw, where = recipe.plain(), "recipe"
    else:
        raw, where = read_yaml(recipe_path(str(recipe))), str(recipe)
    resolved = apply_overrides(raw, _as_words(overrides), where)
    return pipeline.train(resolved, Path(out), resume=resume, stage=stage, notify=notify)


def label(
    run: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    overrides: Overrides | None = None,
    which: Which = "best",
    device: str = "auto",
    strict: bool = False,
    workers: int = 1,
) -> WriteSummary:
    """Write masks of tagged images; their tags select the classes.

    Finished masks are skipped, so a second call resumes. `examples/label_with_tags.py` is an
    example.

    Args:
        run: Run folder, or a hub id such as `org/name`.
        data: Folder of tagged images: in COCO format, in VOC layout, with `tags.csv`, with
            `tags.jsonl`, or with a folder per class.
        out: Folder for the masks, `classes.json` and scores.
        split: List of a VOC layout, split of COCO, or part (`train`, `val`, `all`) of a folder.
            None: the list that the run trained on, or the complete folder.
        overrides: Values for keys of the sections `backbone`, `data`, `method`, `predict` and
            `refiner`.
        which: Weights of the run to use.
        device: Where the network runs; `auto` is the GPU if there is one.
        strict: Whether an unreadable image is an error; otherwise it is skipped.
        workers: Processes that make masks on the CPU; with a network on a GPU, they refine masks.

    Raises:
        DataError: If the folder or its tags cannot be used.
        RunError: If the run has no weights, or `out` contains masks made with different settings.
    """
    keys = _as_words(overrides)
    segmenter = open_run(run, keys, which, device)
    source, part = open_source(segmenter.recipe, Path(data), split, keys)
    settings = {**segmenter.settings("tags"), "split": part}
    writer = MaskWriter(Path(out), segmenter.class_names, "tags", settings)
    return label_dataset(segmenter, source, writer, strict=strict, workers=workers)


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    overrides: Overrides | None = None,
    which: Which = "best",
    device: str = "auto",
    strict: bool = False,
    workers: int = 1,
    voc_server: str | None = None,
) -> WriteSummary:
    """Write masks of untagged images; the classifier selects the classes.

    Finished masks are skipped, so a second call resumes. `examples/train_on_a_folder.py` is an
    example.

    Args:
        run: Run folder, or a hub id such as `org/name`.
        images: Images and folders of images.
        out: Folder for the masks, `classes.json` and scores.
        overrides: Values for keys of the sections `backbone`, `data`, `method`, `predict` and
            `refiner`.
        which: Weights of the run to use.
        device: Where the network runs; `auto` is the GPU if there is one.
        strict: Whether an unreadable image is an error; otherwise it is skipped.
        workers: Processes that make masks on the CPU; with a network on a GPU, they refine masks.
        voc_server: Name of a list, usually `test`, of the VOC folder in `images`: only its images
            count, unreadable ones are errors, and the masks go where VOC's evaluation server
            expects them, `results/VOC2012/Segmentation/comp5_test_cls` in `out`.

    Raises:
        DataError: If there are no images, or two of them would get the same mask file.
        RunError: If the run has no weights or, for the server, other classes than VOC, or `out`
            contains masks made with different settings.
    """
    segmenter = open_run(run, _as_words(overrides), which, device)
    settings = segmenter.settings("classifier")
    paths, inside = [Path(image) for image in images], Path()
    if voc_server is not None:
        reject_other_classes(segmenter.class_names)
        paths, inside = server_images(paths, voc_server), SERVER_FOLDER
        settings, strict = {**settings, "split": voc_server}, True
    writer = MaskWriter(Path(out), segmenter.class_names, "classifier", settings, inside)
    return predict_paths(segmenter, paths, writer, strict=strict, workers=workers)


def tune(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    limit: int | None = 100,
    crf: bool = False,
    dry_run: bool = False,
    which: Which = "best",
    device: str = "auto",
    notify: Callable[[str], object] = lambda line: None,
) -> Tuning:
    """Choose thresholds and refiner of a run on a few true masks, or by agreement without any.

    The choice goes into `tune.json` of the run, which everything that loads the run reads. Every
    call starts from the values that the run was trained with.

    Args:
        run: Run folder.
        data: Folder of tagged images, of which some or all have a true mask.
        split: Name of a list or part; None: see `label`.
        limit: Largest number of images, spread evenly; None: all.
        crf: Also compare the dense CRF; slow.
        dry_run: Write nothing.
        which: Weights of the run to use.
        device: Where the network runs.
        notify: Receives a line of progress now and then.

    Raises:
        DataError: If the folder or its tags cannot be used.
        RunError: If the run is missing, has no weights or cannot be written to.
    """
    folder = stage_folder(Path(run), "train")
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder; tune writes its choice into a folder")
    trained: list[Recipe] = []

    def as_trained(recipe: Recipe) -> Recipe:
        trained.append(undo_tuned(recipe, folder))
        return trained[-1]

    segmenter = Segmenter.load(run, which, device=device, configure=as_trained)
    source, part = open_source(segmenter.recipe, Path(data), split, {})
    if segmenter.recipe.data.true_masks == "train" and split is None:
        notify(
            "warning: this run learned from true masks, and masks that it knows make every setting "
            "look good; name other images with --split"
        )
    tuning = tune_segmenter(segmenter, source, limit=limit, slow=crf, notify=notify)
    if not dry_run:
        evidence = {**tuning.evidence(), "data": str(data), "split": part, **segmenter.origin}
        write_tuned(folder, trained[-1], tuning.changes, evidence)
    return tuning


def evaluate(
    predictions: str | Path,
    truth: str | Path,
    *,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    limited: bool = False,
    by_size: bool = False,
    workers: int | None = None,
) -> Report:
    """Score masks against true masks of the same names: IoU of each class and its mean.

    Args:
        predictions: Folder of masks, with a `classes.json` if tag2mask wrote it. Of a run with
            stages, the masks of the last stage that labels.
        truth: Folder of true masks, or the root of a data set in VOC layout.
        split: Name of a VOC list, or path of a text file with a name per line.
        class_names: Names of the predictions' values 1..F, where there is no `classes.json`.
        limited: Score only images that have a prediction; otherwise a missing one is an error.
        by_size: Also score objects by their true area: the smallest to the largest quarter of them.
            An object is all pixels of one class in one image.
        workers: Threads that read masks; None: one per processor core.

    Raises:
        DataError: If a mask is missing, unreadable, of another size than its true mask, or holds
            an unknown value.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import tag2mask
        >>> from tag2mask.io.masks import save_mask
        >>> predictions, truth = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
        >>> save_mask(np.array([[0, 1, 1, 1]], dtype=np.uint8), predictions / "image.png")
        >>> save_mask(np.array([[0, 0, 1, 1]], dtype=np.uint8), truth / "image.png")
        >>> report = tag2mask.evaluate(predictions, truth, class_names=["cat"])
        >>> [round(iou, 3) for iou in report.iou]
        [0.5, 0.667]
    """
    return evaluate_folder(
        stage_folder(Path(predictions), "label"),
        Path(truth),
        split=split,
        class_names=class_names,
        limited=limited,
        by_size=by_size,
        workers=workers,
    )


def open_run(
    run: str | Path, overrides: Mapping[str, str], which: Which = "best", device: str = "auto"
) -> Segmenter:
    """Open a run with overridden inference settings.

    A refiner named in the overrides is applied even where the inference protocol applies none. A
    method named there reads the run's weights.

    Args:
        run: Run folder, or a hub id such as `org/name`.
        overrides: Dotted recipe key -> text of its value.
        which: Weights of the run to use.
        device: Where the network runs.

    Raises:
        RecipeError: If an override does not fit.
        RunError: If the run is missing or contains no weights.
        WeightsError: If the named method has other parameters than the run's.
    """
    if "refiner.name" in overrides:
        overrides = {"predict.refine": "true", **overrides}

    def configure(trained: Recipe) -> Recipe:
        return apply_overrides(trained.plain(), overrides, f"{run}/recipe.yaml")

    return Segmenter.load(run, which, device=device, configure=configure if overrides else None)


def open_source(
    recipe: Recipe, root: Path, split: str | None, overrides: Mapping[str, str]
) -> tuple[Source, str]:
    """Open the tagged images of a folder, in whatever layout it has.

    Args:
        recipe: Of the run.
        root: Folder of tagged images.
        split: Name of a list or part; None: see `label`.
        overrides: Dotted recipe key -> text of its value; they win over the layout.

    Returns:
        The source, and the name of the list or part.

    Raises:
        DataError: If the folder is missing or its images and tags contradict each other.
    """
    keys = {"data.root": str(root), "data.name": layout_of(root), **overrides}
    data = apply_overrides(recipe.plain(), keys, str(root)).data
    is_voc, has_lists = data.name == "voc", data.name in ("coco", "voc")
    part = split or ("train" if has_lists else "all")
    # A VOC list may be named `train` or `val` too; with its suffix it is always the list.
    name = f"{split}.txt" if split and is_voc else part
    source: Source = plugins.load("data", data.name)(data, name)
    is_default_list = has_lists and split is None
    return source, str(data.model_dump()["split"]) if is_default_list else part


def _as_words(overrides: Overrides | None) -> dict[str, str]:
    """Write override values as the command line does, and check their keys."""
    return parse_overrides(f"{key}={_as_text(value)}" for key, value in (overrides or {}).items())


def _as_text(value: object) -> str:
    """Write one value: lists with commas, `none` for None."""
    if isinstance(value, list | tuple):
        return ",".join(_as_text(item) for item in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)
