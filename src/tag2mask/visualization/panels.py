"""Pictures side by side with captions: heat over a gray image, masks over an image, marked cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from tag2mask.io.palette import colorize, voc_palette
from tag2mask.types import BACKGROUND, Image, Mask

PANEL_HEIGHT_PX = 168
PANEL_MAX_WIDTH_PX = 320
CAPTION_PX = 34
"""Two lines of text under each panel."""
CAPTION_FONT_PX = 12
SWATCH_PX = 12
"""Room of a class's color before its name."""
GAP_PX = 6
PAPER = (250, 250, 248)
INK = (40, 42, 46)
FAINT = (110, 113, 120)
HEAT = ((18, 18, 48), (52, 58, 132), (38, 130, 142), (122, 196, 96), (250, 232, 92))
"""Colors of evidence 0, 1/4, 1/2, 3/4 and 1: dark to light, so that it also reads in gray."""
HEAT_OPACITY = 0.75
MASK_OPACITY = 0.65
MARK, MARK_EDGE = (255, 64, 64), (255, 255, 255)
"""Colors of marks, and of the line around a marked place: seen on dark and on light."""
MARK_PX = 4
"""Radius of a marked place."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Panel(NamedTuple):
    """One picture of a strip with its caption."""

    picture: Image
    title: str
    values: tuple[tuple[int, str], ...] = ()
    """Mask value and text of each entry of the second caption line, drawn with its color."""
    note: str = ""
    """Second caption line where there are no values."""
    point: tuple[float, float] | None = None
    """(x, y) of a place to mark, as fractions of the picture."""
    window: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom of a frame to draw, as fractions of the picture."""


def draw_strip(panels: Sequence[Panel]) -> PILImage.Image:
    """Set panels of one image side by side with their captions."""
    height, width = panels[0].picture.shape[:2]
    factor = min(PANEL_HEIGHT_PX / height, PANEL_MAX_WIDTH_PX / width)
    size = (max(72, round(width * factor)), max(24, round(height * factor)))
    widths = [min(max(size[0], _caption_width(panel)), PANEL_MAX_WIDTH_PX) for panel in panels]
    canvas = PILImage.new(
        "RGB",
        (sum(widths) + (len(widths) + 1) * GAP_PX, size[1] + CAPTION_PX + 2 * GAP_PX),
        PAPER,
    )
    left = GAP_PX
    for panel, room in zip(panels, widths, strict=True):
        picture = PILImage.fromarray(panel.picture).resize(size, PILImage.Resampling.BILINEAR)
        _mark(picture, panel)
        tile = PILImage.new("RGB", (room, size[1] + CAPTION_PX), PAPER)
        tile.paste(picture)
        _caption(tile, panel, size[1])
        canvas.paste(tile, (left, GAP_PX))
        left += room + GAP_PX
    return canvas


def heat_colors(value: npt.NDArray[np.float32]) -> Image:
    """Color (H, W) values in [0, 1] from dark to light, (H, W, 3)."""
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(value, stops, [color[c] for color in HEAT]) for c in range(3)]
    return _whole(np.stack(channels, axis=-1))


def stretched(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Values spread over [0, 1]: refined probabilities are meant to be nearly flat."""
    low, high = float(value.min()), float(value.max())
    return (value - low) / max(high - low, 1e-6)


def heat_over(image: Image, value: npt.NDArray[np.float32]) -> Image:
    """Lay (H, W) values in [0, 1] over a gray image."""
    gray = image.mean(axis=2, keepdims=True)
    mixed = (1 - HEAT_OPACITY) * gray + HEAT_OPACITY * heat_colors(value)
    return _whole(mixed)


def mask_over(image: Image, mask: Mask) -> Image:
    """Lay a mask over an image; background is dimmed, ignored pixels get their palette color."""
    share = np.where(mask == BACKGROUND, 0.0, MASK_OPACITY)[..., None]
    dimmed = np.where((mask == BACKGROUND)[..., None], image * 0.6, image)
    return _whole(dimmed * (1 - share) + colorize(mask) * share)


def legend(mask: Mask, names: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Value and name of each class that owns a pixel."""
    return tuple((int(v), names[v - 1]) for v in np.unique(mask) if 0 < v <= len(names))


def _mark(picture: PILImage.Image, panel: Panel) -> None:
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


def _caption(tile: PILImage.Image, panel: Panel, top: int) -> None:
    """Write title and second line below the picture; what does not fit is cut off by the tile."""
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(size=CAPTION_FONT_PX)
    draw.text((1, top + 2), panel.title, fill=INK, font=font)
    left, line = 1, top + 18
    if not panel.values:
        draw.text((left, line), panel.note, fill=FAINT, font=font)
    for value, text in panel.values:
        color = tuple(voc_palette()[value].tolist())
        draw.rectangle((left, line + 3, left + 8, line + 11), fill=color)
        draw.text((left + SWATCH_PX, line), text, fill=FAINT, font=font)
        left += _entry_width(text, font)


def _caption_width(panel: Panel) -> int:
    """Room that a panel's caption takes, in pixels."""
    font = ImageFont.load_default(size=CAPTION_FONT_PX)
    second = math.ceil(font.getlength(panel.note))
    if panel.values:
        second = sum(_entry_width(text, font) for _, text in panel.values)
    return 2 + max(math.ceil(font.getlength(panel.title)), second)


def _entry_width(text: str, font: Font) -> int:
    """Room of a class in the second line: swatch, name and a gap."""
    return SWATCH_PX + math.ceil(font.getlength(text)) + 8


def _whole(picture: npt.NDArray[np.floating]) -> Image:
    whole: Image = picture.round().astype(np.uint8)
    return whole
