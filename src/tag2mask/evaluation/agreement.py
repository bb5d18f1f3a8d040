"""Compare settings without true masks: does the network say the same of a flipped image?

A background score that cuts through the slope of the maps moves borders with every small change of
the maps; a good one lies where they are steep. Agreement is corrected for chance, because masks
that are empty, or full, agree without saying anything. It is weaker than true masks: a network can
agree with itself and be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tag2mask.inference.candidate_settings import (
    LEVELS,
    MaskMaker,
    MaskSetting,
    present_setting,
)
from tag2mask.inference.segmenter import Segmenter
from tag2mask.types import Sample


def flip_agreement(
    segmenter: Segmenter, samples: Iterable[Sample], note: Callable[[str, int], object]
) -> tuple[list[MaskSetting], list[float]] | None:
    """Score background settings by the agreement of the masks of images and their flipped images.

    Args:
        segmenter: Its refiner and CRF are used for all settings; its flips are not.
        samples: Images with tags; their masks are not read.
        note: Receives what is done, and the position of each finished image.

    Returns:
        Settings, the present one first, and the mean over images of their kappa; None if the maps
        bring a background of their own.
    """
    present = present_setting(segmenter)
    if present.rule is None:
        return None
    fixed = [replace(present, rule="fixed", background=level) for level in LEVELS]
    otsu = replace(present, rule="otsu", background=None)
    settings = list(dict.fromkeys([present, *fixed, otsu]))
    single = _without_flip(segmenter)
    maker = MaskMaker(single, settings)
    values = []
    for position, sample in enumerate(samples):
        flipped = replace(sample, image=np.ascontiguousarray(sample.image[:, ::-1]))
        masks, others = (_masks(single, maker, one) for one in (sample, flipped))
        values.append([kappa(masks[at], others[at].flip(-1)) for at in range(len(settings))])
        note("agreement", position)
    return settings, np.mean(values, axis=0).tolist()


def kappa(first: Tensor, second: Tensor) -> float:
    """Return Cohen's kappa of two masks: their agreement beyond what chance gives.

    Args:
        first: (H, W) uint8.
        second: (H, W) uint8.

    Returns:
        At most 1; 0 if both masks have only one and the same value, which says nothing.

    Source:
        Cohen: A coefficient of agreement for nominal scales, 1960.

    Example:
        >>> import torch
        >>> half = torch.tensor([[0, 0, 1, 1]])
        >>> kappa(half, half), kappa(half, torch.tensor([[0, 1, 0, 1]]))
        (1.0, 0.0)
    """
    values = torch.unique(torch.cat([first.flatten(), second.flatten()]))
    shares = [[(mask == value).double().mean() for value in values] for mask in (first, second)]
    chance = float(sum(one * other for one, other in zip(*shares, strict=True)))
    observed = float((first == second).double().mean())
    return 0.0 if len(values) < 2 else (observed - chance) / (1 - chance)


def _masks(segmenter: Segmenter, maker: MaskMaker, sample: Sample) -> dict[int, Tensor]:
    """Make the masks of one image by the position of their setting, classes from tags."""
    output = segmenter.run_network(sample.image, sample.tags, sample.name)
    return dict(maker.masks(sample, output, tuple(np.flatnonzero(sample.tags).tolist())))


def _without_flip(segmenter: Segmenter) -> Segmenter:
    """Return a segmenter of the same network that does not flip images itself."""
    predict = segmenter.recipe.predict.model_copy(update={"flip": False})
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    return Segmenter(segmenter.method, recipe, segmenter.device)
