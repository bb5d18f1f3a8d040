"""A panel: one picture with a caption, marks, or a mask over the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from tag2mask.io.palette import colorize, overlay_palette
from tag2mask.types import BACKGROUND, Image, Mask

CAPTION_PX = 34
"""Height of the two lines of text under each picture."""
CAPTION_FONT_PX = 12
SWATCH_PX = 12
"""Width of a class color before the class name."""
PAPER = (250, 250, 248)
INK = (40, 42, 46)
FAINT = (110, 113, 120)
MASK_OPACITY = 0.65
MARK, MARK_EDGE = (255, 64, 64), (255, 255, 255)
"""Colors of marks and of the line around a point; visible on dark and on light pictures."""
MARK_PX = 4
"""Radius of a point."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Panel(NamedTuple):
    """One picture with its caption."""

    picture: Image
    title: str
    values: tuple[tuple[int, str], ...] = ()
    """Second caption line: mask value and text of each entry, drawn with the class color."""
    note: str = ""
    """Second caption line of a panel without `values`."""
    point: tuple[float, float] | None = None
    """(x, y) of a point to mark, as fractions of the picture."""
    window: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom of a frame to draw, as fractions of the picture."""


def draw_panel(
    panel: Panel, size: tuple[int, int], width: int, text_scale: float = 1.0
) -> PILImage.Image:
    """Draw a panel with its caption.

    Args:
        panel: Its picture is resized.
        size: (width, height) of the picture, in pixels.
        width: Of the panel, in pixels; clips longer captions.
        text_scale: Factor of the caption's size.
    """
    picture = PILImage.fromarray(panel.picture).resize(size, PILImage.Resampling.BILINEAR)
    _draw_marks(picture, panel)
    tile = PILImage.new("RGB", (width, size[1] + round(CAPTION_PX * text_scale)), PAPER)
    tile.paste(picture)
    _draw_caption(tile, panel, size[1], text_scale)
    return tile


def caption_width(panel: Panel, text_scale: float = 1.0) -> int:
    """Return the width of a panel's caption, in pixels."""
    font = _caption_font(text_scale)
    second = math.ceil(font.getlength(panel.note))
    if panel.values:
        second = sum(_entry_width(text, font, text_scale) for _, text in panel.values)
    return 2 + max(math.ceil(font.getlength(panel.title)), second)


def overlay_mask(image: Image, mask: Mask) -> Image:
    """Overlay a mask on an image; background is dimmed, ignored pixels get their own color."""
    share = np.where(mask == BACKGROUND, 0.0, MASK_OPACITY)[..., None]
    dimmed = np.where((mask == BACKGROUND)[..., None], image * 0.6, image)
    picture: Image = (dimmed * (1 - share) + colorize(mask) * share).round().astype(np.uint8)
    return picture


def mask_legend(mask: Mask, class_names: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """List the mask value and name of each class in a mask."""
    return tuple(
        (int(value), class_names[value - 1])
        for value in np.unique(mask)
        if 0 < value <= len(class_names)
    )


def _draw_marks(picture: PILImage.Image, panel: Panel) -> None:
    """Draw a panel's window and point into its resized picture."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    if panel.window is not None:
        left, top, right, bottom = panel.window
        box = (left * width, top * height, right * width - 1, bottom * height - 1)
        draw.rectangle(box, outline=MARK)
    if panel.point is not None:
        x, y = panel.point[0] * width, panel.point[1] * height
        box = (x - MARK_PX, y - MARK_PX, x + MARK_PX, y + MARK_PX)
        draw.ellipse(box, fill=MARK, outline=MARK_EDGE)


def _draw_caption(tile: PILImage.Image, panel: Panel, top: int, scale: float) -> None:
    """Write both caption lines below the picture; the tile clips what does not fit."""
    draw = ImageDraw.Draw(tile)
    font = _caption_font(scale)
    draw.text((1, top + 2), panel.title, fill=INK, font=font)
    left, line = 1.0, top + 18 * scale
    if not panel.values:
        draw.text((left, line), panel.note, fill=FAINT, font=font)
    for value, text in panel.values:
        color = tuple(overlay_palette()[value].tolist())
        box = (left, line + 3 * scale, left + 8 * scale, line + 11 * scale)
        draw.rectangle(box, fill=color)
        draw.text((left + SWATCH_PX * scale, line), text, fill=FAINT, font=font)
        left += _entry_width(text, font, scale)


def _caption_font(scale: float) -> Font:
    return ImageFont.load_default(size=CAPTION_FONT_PX * scale)


def _entry_width(text: str, font: Font, scale: float) -> int:
    """Return the width of a class in the second line: swatch, name and a gap."""
    return math.ceil(SWATCH_PX * scale + font.getlength(text) + 8 * scale)
