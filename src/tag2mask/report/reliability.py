"""Charts of what rests on true masks or tags: the sweep of thresholds, and calibration."""

from __future__ import annotations

from tag2mask.evaluation.calibration import FEWEST, Calibration
from tag2mask.inference.segmenter import Segmenter
from tag2mask.report.charts import Chart, percent_chart
from tag2mask.report.images import ReportImages
from tag2mask.report.network_scores import NetworkScores
from tag2mask.report.quality import tag_calibration

FEWEST_IMAGES = 20
"""With fewer images no threshold is advised."""
CLEARLY_BETTER = 0.02
"""Gain in mIoU from which another threshold is worth a line; less is chance on few images."""
_READ_CALIBRATION = (
    "The height says how often it is right, in %: above the dashed line it is too cautious, below "
    "too sure. Probabilities that it rarely gives have no point."
)


def sweep_chart(scores: NetworkScores | None, segmenter: Segmenter | None) -> Chart | None:
    """Draw the mIoU at every background threshold; None if nothing was swept."""
    if scores is None or scores.sweep is None or segmenter is None:
        return None
    miou = scores.sweep.miou().tolist()
    points = list(zip(scores.sweep.thresholds.tolist(), [100 * one for one in miou], strict=True))
    best, score = scores.sweep.best()
    present = _present_threshold(segmenter)
    used = (
        "This run chooses a threshold for each image instead; the command tune compares both."
        if present is None
        else f"The vertical line is the threshold of this run, {present:g}."
    )
    note = (
        f"How good masks would be at each value: mIoU in % of the maps of {scores.images} images"
        f"{_known_words(scores)}, without refiner. Best: {best:g} ({100 * score:.1f} %). {used}"
    )
    return percent_chart(
        "Overlap at each background threshold",
        {"mIoU": points},
        note=note,
        x_title="background threshold",
        x_max=1.0,
        marker=present,
    )


def better_threshold(scores: NetworkScores | None, segmenter: Segmenter | None) -> float | None:
    """Return the best threshold of the sweep if it clearly beats the one of the run."""
    if scores is None or scores.sweep is None or segmenter is None:
        return None
    present = _present_threshold(segmenter)
    if present is None or scores.images < FEWEST_IMAGES:
        return None
    best, score = scores.sweep.best()
    gaps = abs(scores.sweep.thresholds - present)
    now = float(scores.sweep.miou()[int(gaps.argmin())])
    return best if score - now > CLEARLY_BETTER else None


def calibration_charts(
    images: ReportImages | None, scores: NetworkScores | None, trained_on: frozenset[str]
) -> tuple[Chart, ...]:
    """Draw the calibration of the classifier's tags and of the masks' pixels, where known."""
    charts = []
    tags = None if images is None else tag_calibration(images, trained_on)
    if tags is not None:
        learned = (
            "held-out images"
            if tags.held_out
            else "images whose tags it learned from; on new images it is worse"
        )
        note = (
            "If it is 80 % sure that an image shows a class, is it right in 80 % of them? "
            f"Measured on {tags.images:,} {learned}. {_READ_CALIBRATION}"
        )
        charts.append(_draw("Calibration of the tags", tags.calibration, note))
    if scores is not None and scores.calibration.count:
        note = (
            "If it is 80 % sure of the class of a pixel, is it right in 80 % of them? Measured on "
            f"{scores.images} images{_known_words(scores)}. {_READ_CALIBRATION}"
        )
        charts.append(_draw("Calibration of the pixels", scores.calibration, note))
    return tuple(charts)


def _draw(title: str, calibration: Calibration, note: str) -> Chart:
    bins = calibration.bins(FEWEST)
    points = [(100 * one.mean_prob, 100 * one.share_right) for one in bins]
    return percent_chart(
        title,
        {f"measured; calibration error {100 * calibration.error():.1f} %": points},
        note=note,
        x_title="probability that the network gives, in %",
        diagonal="perfect",
    )


def _present_threshold(segmenter: Segmenter) -> float | None:
    """Return the background threshold of all images; None if each image has its own."""
    config = segmenter.config
    return config.background_score if config.background_rule == "fixed" else None


def _known_words(scores: NetworkScores) -> str:
    """Say how many of the images the network learned from."""
    if not scores.trained_on:
        return " that the network never learned from"
    return f" ({scores.trained_on} of them with tags that the network learned from)"
