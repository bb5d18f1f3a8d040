"""What the network itself adds where true masks exist: a sweep of thresholds, calibrated pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError
from tag2mask.evaluation.calibration import Calibration
from tag2mask.evaluation.sources import spread_indices
from tag2mask.evaluation.sweep import ThresholdSweep
from tag2mask.functional.cam import upsample
from tag2mask.inference.segmenter import InferenceOutput, Segmenter, image_tensor
from tag2mask.inference.uncertainty import postprocess_with_parts
from tag2mask.report.images import PredictedImages, ReportImages, RunData
from tag2mask.types import BACKGROUND, IGNORE, Image, Mask, Prediction

MOST_IMAGES = 40
"""Largest number of images that run through the network for the page."""
FEWEST_HELD_OUT = 10
"""Fewer held-out images with a true mask are too few; then training images count too."""
MASKS_TO_SHOW = 16
"""Number of masks to make if there is no folder of masks and no true mask."""
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


class TaggedImage(NamedTuple):
    """One image to run through the network."""

    name: str
    image: Image
    tags: npt.NDArray[np.uint8] | None
    """(F,) in {0, 1}; None lets the classifier select the classes."""
    truth: Mask | None


class NetworkScores(NamedTuple):
    """What came out of some images."""

    predictions: Mapping[str, Prediction]
    """Kept masks by image name."""
    sweep: ThresholdSweep | None
    """Of the CAM without refiner; None if the masks need no threshold or nothing is known."""
    calibration: Calibration
    """Probabilities of the pixels' classes."""
    images: int
    trained_on: int
    """Number of these images that the network learned from."""


def score_network(
    segmenter: Segmenter,
    images: Iterable[TaggedImage],
    trained_on: frozenset[str],
    *,
    keep: bool = False,
) -> NetworkScores:
    """Run a network on images, and compare maps and probabilities with true masks.

    Args:
        segmenter: Makes the masks.
        images: Read one at a time.
        trained_on: Names of the training images.
        keep: Keep images and masks.
    """
    predictions: dict[str, Prediction] = {}
    names: list[str] = []
    sweep = ThresholdSweep(THRESHOLDS, len(segmenter.class_names) + 1)
    calibration, swept = Calibration(), False
    for name, image, tags, truth in images:
        output = segmenter.infer(image, tags, name=name)
        prediction = _predict(segmenter, output, truth, calibration)
        names.append(name)
        if keep:
            predictions[name] = prediction
        has_threshold = truth is not None and segmenter.config.has_background
        maps = segmenter.thresholded_maps(output) if has_threshold else None
        if truth is not None and maps is not None:
            sweep.update(maps, truth)
            swept = True
    known = len(trained_on.intersection(names))
    return NetworkScores(predictions, sweep if swept else None, calibration, len(names), known)


def images_with_truth(
    images: ReportImages, segmenter: Segmenter, trained_on: frozenset[str]
) -> Iterator[TaggedImage]:
    """Read images of a mask folder that have a true mask, held-out ones if there are enough."""
    if images.truth is None or images.class_names != segmenter.class_names:
        return
    names = images.with_truth
    others = [name for name in names if name not in trained_on]
    names = tuple(others) if len(others) >= FEWEST_HELD_OUT else names
    for index in spread_indices(len(names), MOST_IMAGES):
        name = names[index]
        try:
            image, truth = images.image(name), images.truth.read(name)
        except DataError:
            continue
        if truth.shape == image.shape[:2]:
            tags = images.tags.get(name)
            row = None if tags is None else _tag_row(tags, segmenter.class_names)
            yield TaggedImage(name, image, row, truth)


def data_images(data: RunData) -> list[TaggedImage]:
    """Read held-out images of a run's data, or training images; with true masks if it has some."""
    for part in ("val", "train"):
        source = data.parts.get(part)
        if source is None or not len(source):
            continue
        masked = list(source.mask_indices)
        pool, limit = (masked, MOST_IMAGES) if masked else (range(len(source)), MASKS_TO_SHOW)
        found = []
        for at in spread_indices(len(pool), limit):
            try:
                sample = source[pool[at]]
            except DataError:
                continue
            found.append(TaggedImage(sample.name, sample.image, sample.tags, sample.mask))
        return found
    return []


def predicted_images(
    segmenter: Segmenter, scores: NetworkScores, images: Sequence[TaggedImage], data: RunData
) -> PredictedImages:
    """Return masks that were made for the page as its images."""
    tags = {
        one.name: [segmenter.class_names[index] for index in one.tags.nonzero()[0]]
        for one in images
        if one.tags is not None
    }
    truth = data.true_masks(segmenter.class_names)
    made = PredictedImages(segmenter.class_names, scores.predictions, tags, truth)
    made.has_background = segmenter.config.has_background
    return made


def _predict(
    segmenter: Segmenter, output: InferenceOutput, truth: Mask | None, calibration: Calibration
) -> Prediction:
    """Make the mask, and compare the probabilities of its pixels with the true mask."""
    image = image_tensor(output.image).to(segmenter.device)
    made, parts = postprocess_with_parts(segmenter.postprocessor, image, output.selected)
    mask = made.mask.cpu().numpy()
    if truth is not None:
        probs = upsample(made.probs.float(), mask.shape)[0].amax(dim=0).cpu().numpy()
        counted = (truth != IGNORE) & (mask != IGNORE)
        if not segmenter.config.has_background:
            counted &= truth != BACKGROUND
        calibration.add(np.clip(probs[counted], 0, 1), (mask == truth)[counted])
    return segmenter.build_prediction(output, mask, parts)


def _tag_row(tags: Sequence[str], class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.array([name in tags for name in class_names], dtype=np.uint8)
