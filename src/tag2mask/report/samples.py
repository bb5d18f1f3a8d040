"""Sample images of the page: the best, the worst, the most uncertain, and random ones."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tag2mask.errors import DataError
from tag2mask.io.palette import css_color
from tag2mask.report.images import ReportImages
from tag2mask.report.pictures import Picture, jpeg_picture, layer_picture
from tag2mask.types import Mask
from tag2mask.visualization.gallery import mask_layer, shrink
from tag2mask.visualization.panels import mask_legend

GROUP_SIZE = 4
"""Images per group."""
SIDE_PX = 400
"""Longer side of a picture; two pixels of a phone's screen per pixel of the card."""
IMAGE_BYTES, LAYER_BYTES = 48_000, 24_000
"""Bounds of the files of one sample: an image and up to two layers."""


class LegendColor(NamedTuple):
    """A class in a mask."""

    name: str
    color: str
    """As CSS writes it."""


class SampleCard(NamedTuple):
    """One image with its mask."""

    name: str
    width: int
    height: int
    image: Picture
    mask: Picture
    """Transparent where the mask is background."""
    truth: Picture | None
    iou: float | None
    uncertainty: float | None
    tags: str
    """Empty if the classifier chose the classes."""
    legend: tuple[LegendColor, ...]


class SampleGroup(NamedTuple):
    """Images chosen in the same way."""

    title: str
    note: str
    cards: tuple[SampleCard, ...]


def draw_groups(
    images: ReportImages, iou: Mapping[str, float], seed: int
) -> tuple[SampleGroup, ...]:
    """Draw all groups; images that cannot be read are replaced by the next ones.

    Args:
        images: To choose from.
        iou: Name -> IoU of images with a true mask; NaN where nothing is to be found.
        seed: Of the random images.
    """
    ranked = [name for name in iou if not math.isnan(iou[name])]
    best = sorted(ranked, key=lambda name: -iou[name])
    uncertain = sorted(images.uncertainty, key=lambda name: -images.uncertainty[name])
    drawn = list(images.names)
    random.Random(seed).shuffle(drawn)
    chosen = (
        ("Best", "The masks that overlap their true masks most.", best),
        ("Worst", "The masks that overlap their true masks least.", best[::-1]),
        ("Most uncertain", "Inspect and correct these first.", uncertain),
        ("Random", f"Chosen by chance, not for how good they are (random seed {seed}).", drawn),
    )
    groups = [
        SampleGroup(title, note, _draw_cards(images, names, iou)) for title, note, names in chosen
    ]
    return tuple(group for group in groups if group.cards)


def _draw_cards(
    images: ReportImages, names: Sequence[str], iou: Mapping[str, float]
) -> tuple[SampleCard, ...]:
    """Draw the first readable images."""
    cards: list[SampleCard] = []
    for name in names[: 4 * GROUP_SIZE]:
        if len(cards) == GROUP_SIZE:
            break
        try:
            cards.append(draw_card(images, name, iou.get(name, math.nan)))
        except DataError:
            continue
    return tuple(cards)


def draw_card(images: ReportImages, name: str, iou: float = math.nan) -> SampleCard:
    """Draw one image and its masks.

    Raises:
        DataError: If one of them cannot be read.
    """
    image, mask = images.image(name), images.mask(name)
    if image.shape[:2] != mask.shape:
        raise DataError(f"{name}: image and mask differ in size")
    small, values = shrink(image, mask, SIDE_PX)
    truth = None
    if images.truth is not None and name in images.truth.names:
        true_values = shrink(image, images.truth.read(name), SIDE_PX)[1]
        truth = layer_picture(name, mask_layer(true_values), LAYER_BYTES)
    return SampleCard(
        name=name,
        width=small.shape[1],
        height=small.shape[0],
        image=jpeg_picture(name, small, IMAGE_BYTES),
        mask=layer_picture(name, mask_layer(values), LAYER_BYTES),
        truth=truth,
        iou=None if math.isnan(iou) else iou,
        uncertainty=images.uncertainty.get(name),
        tags=", ".join(images.tags.get(name, ())),
        legend=_legend(mask, images.class_names),
    )


def _legend(mask: Mask, class_names: Sequence[str]) -> tuple[LegendColor, ...]:
    entries = mask_legend(mask, class_names)
    return tuple(LegendColor(text, css_color(value)) for value, text in entries)
