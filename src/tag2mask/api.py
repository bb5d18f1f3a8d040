"""The functions of the package `tag2mask`: train a recipe, write masks, score masks.

Each does what the command of the same name does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tag2mask import pipeline
from tag2mask.checkpoint import stage_folder
from tag2mask.config.overrides import apply_overrides, override_texts
from tag2mask.config.recipe import Recipe, recipe_path
from tag2mask.errors import RunError
from tag2mask.evaluation.folders import evaluate_folder
from tag2mask.fitting.recipe import fit_recipe
from tag2mask.formats import exchange
from tag2mask.formats.collection import open_masks
from tag2mask.inference.jobs import Job, LabelJob, PredictJob, open_segmenter
from tag2mask.inference.parts import Engine, Parts, write_parts
from tag2mask.inference.run import Which
from tag2mask.inference.tagged_folder import open_source as open_source
from tag2mask.inference.writer import OnImage, WriteSummary, progress
from tag2mask.io.locks import folder_lock
from tag2mask.io.yaml_files import read_yaml
from tag2mask.training.logging import OnStep
from tag2mask.types import Report
from tag2mask.visualization.gallery import write_gallery

open_run = open_segmenter
"""Open a run with overridden inference settings."""
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
    on_step: OnStep | None = None,
) -> Path:
    """Train a recipe into a run folder; of a recipe with stages, run all of them or one.

    Args:
        recipe: Name of a bundled recipe such as `rml/synthetic_tiny`, path of a YAML file, or a
            recipe; or a folder of tagged images, to which a recipe is fitted.
        out: Run folder. Without stages: new or empty unless resuming.
        overrides: Values for keys of the recipe.
        resume: Resume the run in `out`.
        stage: Run this stage only; the stages that it needs must be finished.
        notify: Receives one line of text about each stage.
        on_step: Called after each step with the progress and, where the log has them, the losses.

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
    elif Path(recipe).is_dir():
        raw, where = fit_recipe(Path(recipe)).raw, str(recipe)
    else:
        raw, where = read_yaml(recipe_path(str(recipe))), str(recipe)
    resolved = apply_overrides(raw, override_texts(overrides or {}), where)
    return pipeline.train(
        resolved, Path(out), resume=resume, stage=stage, notify=notify, on_step=on_step
    )


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
    skip_unknown_tags: bool = False,
    overlays: bool = False,
    shards: int | None = None,
    shard: int | None = None,
    engine: Engine = "local",
    on_image: OnImage | None = None,
) -> WriteSummary:
    """Write masks of tagged images; their tags select the classes.

    Finished masks are skipped: a second call resumes. Example: `examples/label_with_tags.py`.

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
        skip_unknown_tags: Leave out tags that the run does not know; otherwise they are an error.
        overlays: Also write a gallery of all masks, `overlays/index.html` in `out`.
        shards: Number of parts that the images are divided into; see `tag2mask.inference.shards`.
        shard: Part to label, from 0 on.
        engine: `local` uses this machine; `ray` labels all shards on a Ray cluster, in `workers`
            actors.
        on_image: Called after each image with its name, its prediction and the progress.

    Raises:
        DataError: If the folder or its tags cannot be used, or the run does not know a tag.
        RunError: If the run has no weights, `out` contains masks made with different settings, or
            no image can be read.
    """
    job = LabelJob(
        run=str(run),
        data=Path(data),
        out=Path(out),
        split=split,
        overrides=override_texts(overrides or {}),
        which=which,
        device=device,
        strict=strict,
        skip_unknown_tags=skip_unknown_tags,
    )
    return _write_masks(job, Parts(engine, shards, shard, workers), overlays, on_image)


def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overrides: Overrides | None = None,
    which: Which = "best",
    device: str = "auto",
    strict: bool = False,
    workers: int = 1,
    listed: str | Path | None = None,
    voc_server: str | None = None,
    overlays: bool = False,
    shards: int | None = None,
    shard: int | None = None,
    engine: Engine = "local",
    on_image: OnImage | None = None,
) -> WriteSummary:
    """Write masks of untagged images; the classifier selects the classes.

    Finished masks are skipped: a second call resumes. Example: `examples/train_on_a_folder.py`.

    Args:
        run: Run folder, or a hub id such as `org/name`.
        images: An image, a folder of images, or a list of these.
        out: Folder for the masks, `classes.json` and scores.
        overrides: Values for keys of the sections `backbone`, `data`, `method`, `predict` and
            `refiner`.
        which: Weights of the run to use.
        device: Where the network runs; `auto` is the GPU if there is one.
        strict: Whether an unreadable image is an error; otherwise it is skipped.
        workers: Processes that make masks on the CPU; with a network on a GPU, they refine masks.
        listed: Text file of further images, one path per line, relative to its folder.
        voc_server: Name of a list, usually `test`, of the VOC folder in `images`: only its images
            count, unreadable ones are errors, and the masks go where VOC's evaluation server
            expects them, `results/VOC2012/Segmentation/comp5_test_cls` in `out`.
        overlays: Also write a gallery of all masks, `overlays/index.html` in `out`.
        shards: As in `label`.
        shard: As in `label`.
        engine: As in `label`.
        on_image: Called after each image with its name, its prediction and the progress.

    Raises:
        DataError: If there are no images, or two of them would get the same mask file.
        RunError: If the run has no weights or, for the server, other classes than VOC, or `out`
            contains masks made with different settings.
    """
    given = [images] if isinstance(images, str | Path) else images
    job = PredictJob(
        run=str(run),
        images=tuple(Path(image) for image in given),
        out=Path(out),
        overrides=override_texts(overrides or {}),
        which=which,
        device=device,
        strict=strict,
        listed=None if listed is None else Path(listed),
        voc_server=voc_server,
    )
    return _write_masks(job, Parts(engine, shards, shard, workers), overlays, on_image)


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


def export(
    masks: str | Path,
    format: str,
    out: str | Path,
    *,
    images: str | Path | None = None,
    most_uncertain: int | None = None,
    flat: bool = False,
) -> int:
    """Export masks to a labeling tool.

    Args:
        masks: Folder of masks that `label` or `predict` wrote. Of a run with stages, the masks of
            the last stage that labels.
        format: Name of a format: `coco`, `cvat`, `yolo_seg`, ...
        out: File or folder to create.
        images: Folder of the images; None: where they were when the masks were written.
        most_uncertain: Export only this many images, those with the most uncertain masks.
        flat: Drop the folders from the names of images.

    Returns:
        Number of exported masks.

    Raises:
        DataError: If there are no masks, or the format needs an image that is missing.
        RecipeError: If there is no such format.
        RunError: If `out` exists.
    """
    folder = stage_folder(Path(masks), "label")
    collection = open_masks(folder, None if images is None else Path(images))
    if most_uncertain is not None:
        collection = collection.most_uncertain(most_uncertain)
    if flat:
        collection = collection.flattened()
    exchange.export_masks(collection, format, Path(out))
    return len(collection)


def export_model(
    run: str | Path,
    format: str,
    out: str | Path,
    *,
    overrides: Overrides | None = None,
    which: Which = "best",
) -> None:
    """Export the network of a run as a model file that runs without tag2mask.

    Args:
        run: Run folder, or a hub id such as `org/name`.
        format: `onnx` or `torch_export`.
        out: File to create.
        overrides: Values for keys of the sections `predict`, `refiner` and `method`: the test-time
            settings of the model.
        which: Weights of the run to use.

    Raises:
        RecipeError: If there is no such format.
        RunError: If `out` exists, the run has no weights, or a setting of the run cannot be part of
            a model file.
        MissingExtraError: If the extra `onnx` is not installed.
    """
    segmenter = open_segmenter(run, override_texts(overrides or {}), which, "cpu")
    exchange.export_model(segmenter, format, Path(out))


def import_masks(
    path: str | Path,
    format: str,
    out: str | Path,
    *,
    images: str | Path | None = None,
    add: bool = False,
) -> int:
    """Import masks that a person corrected in a labeling tool.

    Args:
        path: File or folder that the tool exported.
        format: Name of a format: `coco`, `cvat`, `yolo_seg`, ...
        out: Folder to create, usually `masks` beside the images.
        images: Folder of the images. Masks get the names of these images, also where the tool
            dropped the folders of a name; some formats need it for the sizes of images.
        add: Add to the masks of an existing folder instead.

    Returns:
        Number of imported masks.

    Raises:
        DataError: If the masks cannot be read.
        RecipeError: If there is no such format.
        RunError: If `out` exists; with `add`, if it already has a mask of one of the images.
    """
    folder = None if images is None else Path(images)
    return exchange.import_masks(Path(path), format, Path(out), folder, add=add)


def _write_masks(job: Job, parts: Parts, overlays: bool, on_image: OnImage | None) -> WriteSummary:
    """Do a job, and write its gallery if asked for."""
    shard = parts.own_shard()  # rejects contradictions before the network is loaded
    if overlays and shard is not None:
        raise RunError("overlays: a gallery shows all masks; leave out overlays or shards")
    opened = job.open()
    summary = write_parts(job, opened, parts, on_image)
    if overlays:
        with folder_lock(job.out), progress() as bar:
            task = bar.add_task("overlays", total=len(opened.names))
            write_gallery(
                job.out,
                opened.names,
                opened.read,
                inside=opened.inside,
                advance=lambda: bar.advance(task),
            )
    return summary
