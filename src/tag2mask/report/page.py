"""Write one self-contained HTML page about a run: how good its masks are, pictures, curves.

The page stays below `MOST_BYTES`: every picture has a largest size in bytes, and there is a largest
number of pictures, of points in a chart, and of rows in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment

from tag2mask.checkpoint import stage_folder
from tag2mask.config.listing import list_sections
from tag2mask.errors import RunError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import write_text
from tag2mask.report.charts import FRAME, Chart, bar_chart
from tag2mask.report.curves import monitor_charts, training_charts
from tag2mask.report.glossary import Glossary
from tag2mask.report.images import FolderImages, ReportImages, RunData
from tag2mask.report.mask_parts import MaskParts, find_masks, mask_tiles, read_masks
from tag2mask.report.network_parts import NetworkParts, inspect_network, open_network
from tag2mask.report.network_scores import (
    NetworkScores,
    data_images,
    images_with_truth,
    predicted_images,
    score_network,
)
from tag2mask.report.pictures import jpeg_file
from tag2mask.report.quality import Quality, measure_quality
from tag2mask.report.reliability import better_threshold, calibration_charts, sweep_chart
from tag2mask.report.run_parts import Run, merge_equal_scores, read_run
from tag2mask.report.samples import draw_groups
from tag2mask.report.sections import (
    class_table,
    data_counts,
    percent,
    provenance,
    score_tiles,
    time_tiles,
)
from tag2mask.report.stages import StagePart, read_stage_scores, read_stages
from tag2mask.report.summary import (
    main_score,
    next_steps,
    page_title,
    quality_sentences,
    training_sentences,
)
from tag2mask.report.templating import make_environment
from tag2mask.visualization.affinity_maps import Point

PAGE = "report.html"
MOST_BYTES = 8_000_000
"""What the page never reaches; a usual one has 1 to 3 MB."""
MOST_STRIPS = 8
STRIP_BYTES = 120_000


class Curves(NamedTuple):
    """Charts of the training of one stage."""

    title: str
    """Empty for a run without stages."""
    charts: tuple[Chart, ...]
    monitors: tuple[Chart, ...]
    """Charts for researchers."""


class PageParts(NamedTuple):
    """Everything that the page shows, measured and drawn."""

    run: Run
    stages: tuple[StagePart, ...]
    data: RunData
    masks: MaskParts | None
    images: ReportImages | None
    quality: Quality | None
    network: NetworkParts
    scores: NetworkScores | None
    segmenter: Segmenter | None
    missing: tuple[str, ...]
    seed: int


def write_report(
    run: Path,
    query: Point | None = None,
    masks: Path | None = None,
    *,
    truth: Path | None = None,
    seed: int = 1,
) -> Path:
    """Write `report.html` into a run folder; the page lists the parts that are missing.

    Args:
        run: Folder that training wrote, finished or not; of a run with stages all of them.
        query: (x, y) of the point whose attention and affinity are shown, as fractions of each
            image; None takes the position with the largest CAM.
        masks: Folder that `label` or `predict` wrote; None: the newest one in the run folder, or
            beside it if the weights of this run made it.
        truth: True masks, as `evaluate` reads them; None: those that the masks were scored
            against, or those of the data.
        seed: Of the choice of random images.

    Returns:
        The path of the page.

    Raises:
        RunError: If the folder does not exist or contains no run, `masks` contains no masks, the
            query lies outside the image, or the page cannot be written.
        DataError: If `truth` has no true mask of these masks.
    """
    if query is not None and not all(0 <= part <= 1 for part in query):
        raise RunError(
            f"query {query[0]:g} {query[1]:g}: give two fractions from 0 to 1, measured from the "
            "left and from the top of the image"
        )
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder")
    if not any((run / name).is_file() for name in ("recipe.yaml", "log.jsonl", "metrics.json")):
        raise RunError(f"{run}: contains no run (no recipe.yaml, log.jsonl or metrics.json)")
    page = run / PAGE
    write_text(page, render(read_parts(run, query, masks, truth, seed)))
    return page


def read_parts(
    folder: Path, query: Point | None, masks: Path | None, truth: Path | None, seed: int
) -> PageParts:
    """Read, measure and draw everything that the page shows; see `write_report`."""
    run, stages = _read_stages_and_run(folder)
    segmenter, no_network = open_network(run)
    sha256 = segmenter.origin["sha256"] if segmenter is not None else ""
    mask_folder = find_masks(folder, masks, sha256)
    if truth is not None and mask_folder is None:
        raise RunError(f"{truth}: there are no masks to compare with; give --masks MASKS too")
    data = RunData(run.recipe)
    mask_parts, no_masks = read_masks(mask_folder)
    images: ReportImages | None = None
    scores = None
    # A method that works while labeling can take minutes per image.
    network_counts = segmenter is not None and not segmenter.method.works_while_labeling
    if mask_folder is not None and mask_parts is not None:
        listed = FolderImages(mask_folder, data)
        listed.find_truth(truth, run.scores)
        images = listed
        if network_counts:
            assert segmenter is not None
            scores = score_network(
                segmenter, images_with_truth(listed, segmenter, data.trained_on), data.trained_on
            )
    elif network_counts:
        assert segmenter is not None
        chosen = data_images(data)
        scores = score_network(segmenter, chosen, data.trained_on, keep=True)
        images = predicted_images(segmenter, scores, chosen, data)
    quality = None if images is None else measure_quality(images, data.trained_on)
    if quality is not None:
        merged = {"the masks on this page": quality.values, **run.scores}
        run = run._replace(scores=merge_equal_scores(merged), no_scores=())
    network = NetworkParts(missing=no_network)
    if segmenter is not None:
        network = inspect_network(segmenter, run, data, query)
    missing = (*run.missing, *run.no_scores, *no_masks, *network.missing)
    return PageParts(
        run, stages, data, mask_parts, images, quality, network, scores, segmenter, missing, seed
    )


def render(parts: PageParts) -> str:
    """Return the complete page as HTML text; it begins with what a reader must know first."""
    run, masks, quality, images = parts.run, parts.masks, parts.quality, parts.images
    counts = data_counts(run.recipe, parts.data)
    score = main_score(run)
    image_iou = quality.image_iou if quality is not None else {}
    groups = () if images is None else draw_groups(images, image_iou, parts.seed)
    metric = str(run.metrics.get("metric") or "")
    sweep = sweep_chart(parts.scores, parts.segmenter)
    calibrations = calibration_charts(images, parts.scores, parts.data.trained_on)
    return (
        environment()
        .get_template("page.html")
        .render(
            glossary=Glossary(),
            title=page_title(run),
            folder=run.folder.resolve().name,
            trained=training_sentences(run, counts),
            verdict=quality_sentences(run, score, quality),
            has_score=score is not None,
            tiles=(*score_tiles(run), *mask_tiles(masks), *time_tiles(run)),
            steps=next_steps(run, masks, quality, better_threshold(parts.scores, parts.segmenter)),
            groups=groups,
            has_truth=any(card.truth is not None for group in groups for card in group.cards),
            has_uncertainty=images is not None and bool(images.uncertainty),
            masks_origin=_masks_origin(parts),
            classes=class_table(run.scores),
            quality=quality,
            masks=masks,
            sweep=sweep,
            calibrations=calibrations,
            network=parts.network,
            saved_strips=tuple(
                strip
                for path in run.strips[:MOST_STRIPS]
                if (strip := jpeg_file(path, STRIP_BYTES)) is not None
            ),
            head_weights=bar_chart("Weight of each head", parts.network.head_weights),
            stages=parts.stages,
            curves=_curves(run, parts.stages),
            has_held_out=bool(metric),
            metric_word="tag_map" if "precision" in metric else "miou" if metric else "",
            data=counts,
            starts=provenance(run),
            settings=list(list_sections(run.recipe)) if run.recipe else [],
            missing=parts.missing,
            parts=_contents(parts, samples=bool(groups), thresholds=bool(sweep or calibrations)),
        )
    )


def environment() -> Environment:
    """Return the templates of the page."""
    templates = make_environment()
    templates.filters["percent"] = percent
    templates.globals["frame"] = FRAME
    return templates


def _read_stages_and_run(folder: Path) -> tuple[Run, tuple[StagePart, ...]]:
    """Read a run; of one with stages the last trained stage, with the scores of all stages."""
    run = read_run(folder)
    stages = read_stages(run.recipe, folder)
    if not stages:
        return run, ()
    trained = read_run(stage_folder(folder, "train"))
    scores = merge_equal_scores({**read_stage_scores(run.recipe, folder), **trained.scores})
    return (
        trained._replace(folder=folder, recipe=trained.recipe or run.recipe, scores=scores),
        stages,
    )


def _curves(run: Run, stages: Sequence[StagePart]) -> tuple[Curves, ...]:
    """Return the charts of each stage that trains, or of the only training."""
    logs = [(f"stage {one.name}", one.log, one.metrics) for one in stages]
    all_curves = (
        Curves(title, training_charts(log, str(metrics.get("metric") or "")), monitor_charts(log))
        for title, log, metrics in logs or [("", run.log, run.metrics)]
    )
    return tuple(curves for curves in all_curves if curves.charts)


def _contents(parts: PageParts, *, samples: bool, thresholds: bool) -> list[tuple[str, str]]:
    """List the sections that the page begins with, by their addresses."""
    listed = (
        ("samples", "images and masks", samples),
        ("classes", "scores", bool(parts.run.scores)),
        ("thresholds", "thresholds", thresholds),
        ("steps", "from image to mask", bool(parts.network.strips or parts.run.strips)),
        ("training", "training", bool(parts.run.log)),
        ("made", "settings", bool(parts.run.log) or parts.run.recipe is not None),
        ("words", "words", True),
    )
    return [(address, name) for address, name, is_there in listed if is_there]


def _masks_origin(parts: PageParts) -> str:
    """Say where the masks of the samples come from."""
    if parts.masks is not None:
        return f"The masks are those in the folder {parts.masks.folder}."
    count = len(parts.images.names) if parts.images is not None else 0
    known = len(parts.data.trained_on.intersection(parts.images.names if parts.images else ()))
    where = "training images" if known else "held-out images"
    return f"There is no folder of masks; the network made these for the page, of {count} {where}."
