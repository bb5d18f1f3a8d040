"""Sample strips: photo, evidence, pseudo-label, prediction and truth side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from tag2mask.checkpoint import write_whole
from tag2mask.data.base import Source
from tag2mask.functional.cam import upsample
from tag2mask.palette import colourise, voc_palette
from tag2mask.prediction.segmenter import Segmenter
from tag2mask.prediction.test_time import Look
from tag2mask.types import BACKGROUND, Image, Mask, Sample

PANEL_HEIGHT_PX = 168
PANEL_MAX_WIDTH_PX = 320
CAPTION_PX = 34
"""Two lines of text under each panel."""
GAP_PX = 6
PAPER = (250, 250, 248)
INK = (40, 42, 46)
FAINT = (110, 113, 120)
HEAT = ((18, 18, 48), (52, 58, 132), (38, 130, 142), (122, 196, 96), (250, 232, 92))
"""Colours of evidence 0, 1/4, 1/2, 3/4 and 1: dark to light, so that it also reads in grey."""
HEAT_OPACITY = 0.75
MASK_OPACITY = 0.65


class Panel(NamedTuple):
    """One picture of a strip with its caption."""

    picture: Image
    title: str
    values: tuple[tuple[int, str], ...] = ()
    """Mask value and text of each entry of the second caption line, drawn with its colour."""
    note: str = ""
    """Second caption line where there are no values."""


def save_strips(
    segmenter: Segmenter, source: Source, indices: Sequence[int], out_dir: Path, step: int
) -> list[Path]:
    """Draw one strip per photo; nothing is trained, the network's mode is put back.

    Args:
        segmenter: May be in training.
        source: Its masks, where it has some, make a last panel.
        indices: Positions in `source`.
        out_dir: Made if missing.
        step: Part of the file names, so that strips of several steps sort by time.

    Returns:
        The PNG files written, in the order of `indices`.

    Raises:
        RunError: If the disk refuses.
    """
    paths = []
    for position, index in enumerate(indices):
        sample = source[index]
        strip = draw_strip(strip_panels(segmenter, sample))
        safe = re.sub(r"[^\w.-]+", "_", sample.name)
        path = out_dir / f"step{step:06d}_{position:02d}_{safe}.png"
        _save(strip, path)
        paths.append(path)
    return paths


def strip_panels(segmenter: Segmenter, sample: Sample) -> list[Panel]:
    """Look at one photo once and return its panels under both gates."""
    image, names = sample.image, segmenter.class_names
    seen = segmenter.look(image, sample.tags)
    tagged = segmenter.choose(seen, sample.tags, "oracle")
    found = segmenter.choose(seen, None, "predicted")
    label = segmenter.settle(image, seen, tagged)
    predicted = label if found == tagged else segmenter.settle(image, seen, found)
    ground = upsample(label.prob[:, :1], image.shape[:2])[0, 0]
    refined = 1 - ground.cpu().numpy()  # all that is not background
    label_mask, predicted_mask = label.mask.cpu().numpy(), predicted.mask.cpu().numpy()
    if seen.logit is not None:  # the decoder may choose from all classes: tell those it chose
        found = tuple(key for key in found if key + 1 in predicted_mask)
    tags = ", ".join(names[key] for key in tagged) or "no class"
    scores = {key + 1: f"{names[key]} {seen.prob[0, key]:.2f}" for key in found}
    panels = [
        Panel(image, "photo", note=f"tags: {tags}"),
        Panel(_heat(image, _strongest(seen, tagged, image)), "evidence (CAM)", note="of the tags"),
        Panel(_heat(image, _stretched(refined)), "refined", note="not background"),
        Panel(
            _painted(image, label_mask),
            "pseudo-label",
            _legend(label_mask, names),
            "all background",
        ),
        Panel(
            _painted(image, predicted_mask), "prediction", tuple(scores.items()), "no class found"
        ),
    ]
    if sample.mask is not None:
        panels.append(Panel(_painted(image, sample.mask), "truth", _legend(sample.mask, names)))
    return panels


def draw_strip(panels: Sequence[Panel]) -> PILImage.Image:
    """Set panels of one photo side by side with their captions."""
    height, width = panels[0].picture.shape[:2]
    factor = min(PANEL_HEIGHT_PX / height, PANEL_MAX_WIDTH_PX / width)
    size = (max(72, round(width * factor)), max(24, round(height * factor)))
    canvas = PILImage.new(
        "RGB",
        (len(panels) * (size[0] + GAP_PX) + GAP_PX, size[1] + CAPTION_PX + 2 * GAP_PX),
        PAPER,
    )
    for position, panel in enumerate(panels):
        left = GAP_PX + position * (size[0] + GAP_PX)
        tile = PILImage.new("RGB", (size[0], size[1] + CAPTION_PX), PAPER)
        tile.paste(PILImage.fromarray(panel.picture).resize(size, PILImage.Resampling.BILINEAR))
        _caption(tile, panel, size[1])
        canvas.paste(tile, (left, GAP_PX))
    return canvas


def heat_colours(value: npt.NDArray[np.float32]) -> Image:
    """Colour (H, W) values in [0, 1] from dark to light, (H, W, 3)."""
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(value, stops, [colour[c] for colour in HEAT]) for c in range(3)]
    return _whole(np.stack(channels, axis=-1))


def _save(strip: PILImage.Image, path: Path) -> None:
    write_whole(path, lambda temporary: strip.save(temporary, format="PNG"))


def _caption(tile: PILImage.Image, panel: Panel, top: int) -> None:
    """Write title and second line below the picture; what does not fit is cut off by the tile."""
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(size=12)
    draw.text((1, top + 2), panel.title, fill=INK, font=font)
    left, line = 1, top + 18
    if not panel.values:
        draw.text((left, line), panel.note, fill=FAINT, font=font)
    for value, text in panel.values:
        colour = tuple(voc_palette()[value].tolist())
        draw.rectangle((left, line + 3, left + 8, line + 11), fill=colour)
        draw.text((left + 12, line), text, fill=FAINT, font=font)
        left += 20 + round(draw.textlength(text, font=font))


def _legend(mask: Mask, names: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Value and name of each class that owns a pixel."""
    return tuple((int(v), names[v - 1]) for v in np.unique(mask) if 0 < v <= len(names))


def _strongest(seen: Look, keys: Iterable[int], image: Image) -> npt.NDArray[np.float32]:
    """(H, W) largest evidence of some classes at the photo's size; zero where there are none."""
    chosen = list(keys)
    if not chosen:
        return np.zeros(image.shape[:2], dtype=np.float32)
    maps = upsample(seen.cam[:, chosen], image.shape[:2])
    strongest: npt.NDArray[np.float32] = maps[0].amax(dim=0).cpu().numpy()
    return strongest


def _stretched(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Values spread over [0, 1]: refined probabilities are meant to be nearly flat."""
    low, high = float(value.min()), float(value.max())
    return (value - low) / max(high - low, 1e-6)


def _heat(image: Image, value: npt.NDArray[np.float32]) -> Image:
    """Lay evidence over a grey photo."""
    grey = image.mean(axis=2, keepdims=True)
    mixed = (1 - HEAT_OPACITY) * grey + HEAT_OPACITY * heat_colours(value)
    return _whole(mixed)


def _painted(image: Image, mask: Mask) -> Image:
    """Lay a mask over a photo; background is dimmed, ignored pixels get their palette colour."""
    share = np.where(mask == BACKGROUND, 0.0, MASK_OPACITY)[..., None]
    dimmed = np.where((mask == BACKGROUND)[..., None], image * 0.6, image)
    return _whole(dimmed * (1 - share) + colourise(mask) * share)


def _whole(picture: npt.NDArray[np.floating]) -> Image:
    whole: Image = picture.round().astype(np.uint8)
    return whole
