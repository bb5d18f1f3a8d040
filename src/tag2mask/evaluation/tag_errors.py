"""Find images whose tags are probably wrong or missing, without true masks.

The backbone of a trained run turns each image into one vector; linear classifiers are trained on
the vectors of all folds but one and predict the tags of that one. So no image is predicted by a
classifier that trained on it. The backbone itself did train on the tags, if the images are those
of the run; a wrong tag that it has memorized is harder to find.

Source:
    Confident learning, Northcutt et al. 2021 (arXiv 1911.00068), section 3.1: the threshold of a
    class is the mean probability of the images that have its tag. Here each class is a question of
    its own, because an image can have several tags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.evaluation.metrics import mean_average_precision
from tag2mask.inference.image_features import image_features
from tag2mask.inference.segmenter import Segmenter

FOLDS = 5
WEIGHT_DECAYS = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Weight decays of the linear classifiers; the one that predicts other folds best is used."""
ITERATIONS = 60
FEWEST_IMAGES = 4 * FOLDS
"""Fewer images train no classifier."""

Floats = npt.NDArray[np.float64]
Tags = npt.NDArray[np.uint8]


class SuspiciousImage(NamedTuple):
    """One image, and how probably its tags are wrong."""

    name: str
    score: float
    """In [0, 1]; sorts images."""
    wrong: tuple[tuple[str, float], ...]
    """Tags that are probably wrong, with the probability of each."""
    missing: tuple[tuple[str, float], ...]
    """Classes whose tag is probably missing, with the probability of each."""


class TagErrors(NamedTuple):
    """All images of a data set, most suspicious first."""

    images: tuple[SuspiciousImage, ...]
    tag_map: float
    """Mean average precision of the classifiers on images that they did not train on."""
    unreadable: tuple[str, ...]
    """One line for each image that cannot be read."""

    @property
    def flagged(self) -> tuple[SuspiciousImage, ...]:
        """The images of which a tag is probably wrong or missing."""
        return tuple(image for image in self.images if image.wrong or image.missing)


def find_tag_errors(
    segmenter: Segmenter, source: Source, advance: Callable[[], object] = lambda: None
) -> TagErrors:
    """Rank the images of a source by how probably their tags are wrong or missing.

    Args:
        segmenter: Its backbone describes the images.
        source: Images and tags.
        advance: Called after each image.

    Raises:
        DataError: If there are too few images.
    """
    features, rows, unreadable = [], [], []
    for index in range(len(source)):
        try:
            features.append(image_features(segmenter, source[index].image))
            rows.append(index)
        except DataError as error:
            unreadable.append(str(error))
        advance()
    if len(rows) < FEWEST_IMAGES:
        raise DataError(
            f"{len(rows)} readable images are too few to check tags; {FEWEST_IMAGES} or more are "
            "needed"
        )
    tags = source.tags[rows]
    probs = cross_fitted_probs(torch.stack(features), tags)
    names = [source.names[index] for index in rows]
    ranked = rank_images(names, source.class_names, probs, tags)
    return TagErrors(tuple(ranked), mean_average_precision(probs, tags), tuple(unreadable))


def cross_fitted_probs(features: Tensor, tags: Tags, folds: int = FOLDS) -> Floats:
    """Predict each image's tags by classifiers that did not train on it.

    Args:
        features: (N, D) of the images.
        tags: (N, F) in {0, 1}, some of them possibly wrong.
        folds: Number of parts; each is predicted by classifiers trained on the others.

    Returns:
        (N, F) probabilities.
    """
    targets = torch.from_numpy(tags).double()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    fold_of = torch.empty(len(features), dtype=torch.int64)
    fold_of[order] = torch.arange(len(features)) % folds
    found = []
    for decay in WEIGHT_DECAYS:
        probs = torch.empty_like(targets)
        for fold in range(folds):
            held_out = fold_of == fold
            probs[held_out] = _fit_and_predict(
                features[~held_out].double(),
                targets[~held_out],
                features[held_out].double(),
                decay,
            )
        found.append((float(F.binary_cross_entropy(probs, targets)), probs))
    best: Floats = min(found, key=lambda one: one[0])[1].numpy()
    return best


def rank_images(
    names: Sequence[str], class_names: Sequence[str], probs: Floats, tags: Tags
) -> list[SuspiciousImage]:
    """Rank images by how much probabilities contradict their tags.

    A tag is probably wrong if its probability is at most that of an average image without it; it is
    probably missing if its probability is at least that of an average image with it. An image that
    has both, as after a swap of two tags, comes before one that has either.

    Args:
        names: N names.
        class_names: F names.
        probs: (N, F) from `cross_fitted_probs`.
        tags: (N, F) in {0, 1}.

    Returns:
        All images, most suspicious first.
    """
    tagged = tags > 0
    with_tag, without_tag = _mean_where(probs, tagged), _mean_where(probs, ~tagged)
    wrong = np.where(tagged, np.clip(1 - probs, 0, 1), 0).max(axis=1)
    missing = np.where(tagged, 0, np.clip(probs, 0, 1)).max(axis=1)
    score = 1 - (1 - wrong) * (1 - missing)
    is_wrong, is_missing = tagged & (probs <= without_tag), ~tagged & (probs >= with_tag)

    def listed(flags: npt.NDArray[np.bool_], row: int) -> tuple[tuple[str, float], ...]:
        return tuple((class_names[k], float(probs[row, k])) for k in np.flatnonzero(flags[row]))

    ranked = [
        SuspiciousImage(name, float(score[row]), listed(is_wrong, row), listed(is_missing, row))
        for row, name in enumerate(names)
    ]
    return sorted(ranked, key=lambda image: -image.score)


def _mean_where(probs: Floats, chosen: npt.NDArray[np.bool_]) -> Floats:
    """Return the (F,) mean of the chosen probabilities of each class; NaN, which flags nothing."""
    count = chosen.sum(axis=0)
    mean: Floats = np.full(probs.shape[1], np.nan)
    np.divide(np.where(chosen, probs, 0).sum(axis=0), count, out=mean, where=count > 0)
    return mean


def _fit_and_predict(features: Tensor, targets: Tensor, others: Tensor, decay: float) -> Tensor:
    """Fit one logistic classifier per class by L-BFGS, and predict other images' probabilities."""
    mean, spread = features.mean(dim=0), features.std(dim=0) + 1e-6
    inputs = (features - mean) / spread
    weight = torch.zeros(inputs.shape[1], targets.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = F.binary_cross_entropy_with_logits(inputs @ weight + bias, targets)
        total = total + decay * weight.square().sum() / targets.shape[1]
        total.backward()
        return total

    optimizer.step(loss)
    return (((others - mean) / spread) @ weight + bias).sigmoid().detach()
