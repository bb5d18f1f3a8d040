"""A gallery of all masks of a folder: overlays as JPEG files, and one offline page that lists them.

```
MASKS/overlays/NAME.jpg     the image with its mask in bright colors and outlines
MASKS/overlays/index.html   sorts, filters and pages; needs no network and no server
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.errors import DataError, RunError
from tag2mask.inference.mask_summary import FULL_FRAME
from tag2mask.io.files import replacing, write_text
from tag2mask.io.mask_folder import class_areas, read_classes, read_scores
from tag2mask.io.masks import read_mask
from tag2mask.io.palette import colorize, css_color
from tag2mask.types import BACKGROUND, IGNORE, Image, Mask

FOLDER = "overlays"
PAGE = "index.html"
LONG_SIDE_PX = 640
"""Larger images are shrunk, so that 5,000 overlays take about 300 MB."""
OPACITY = 0.45
OUTLINE_SHARE = 1 / 250
"""Width of an outline as a share of the longer side."""
EDGE = (20, 20, 20)
"""Color beside an outline, so that it is visible on a light image too."""
QUALITY = 88
DATA_MARK = "/*DATA*/"
"""Where the page's script receives the list of images."""


def write_gallery(
    folder: Path,
    names: Iterable[str],
    read: Callable[[str], Image],
    *,
    inside: Path = Path(),
    advance: Callable[[], object] = lambda: None,
) -> Path:
    """Write the overlays that are missing or older than their mask, then the page about all.

    Args:
        folder: Masks that `label` or `predict` wrote.
        names: Images to draw; those without a mask or no longer readable are left out.
        read: Decodes the image of a name, (H, W, 3) uint8.
        inside: Folder of the masks, relative to `folder`.
        advance: Called after each image.

    Returns:
        The path of the page.

    Raises:
        RunError: If the disk refuses.
    """
    class_names = tuple(read_classes(folder)["classes"])
    for name in names:
        mask, overlay = folder / inside / f"{name}.png", overlay_path(folder, name)
        if mask.is_file() and not _is_newer(overlay, mask):
            try:
                drawn = draw_overlay(read(name), read_mask(mask, len(class_names)))
            except DataError:
                continue
            _save(drawn, overlay)
        advance()
    page = folder / FOLDER / PAGE
    write_text(page, gallery_page(folder, class_names, inside))
    return page


def overlay_path(folder: Path, name: str) -> Path:
    """Return the file of one overlay."""
    return folder / FOLDER / f"{name}.jpg"


def draw_overlay(image: Image, mask: Mask) -> Image:
    """Color the objects of a mask over its image, with outlines; large images are shrunk.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) class indices.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    picture, values = shrink(image, mask, LONG_SIDE_PX)
    colors, alpha = _layer(values)
    mixed = picture * (1 - alpha[..., None]) + colors * alpha[..., None]
    overlay: Image = mixed.round().astype(np.uint8)
    return overlay


def mask_layer(values: Mask) -> Image:
    """Return the colors and outlines of a mask alone, transparent where nothing is drawn.

    Args:
        values: (H, W) class indices.

    Returns:
        (H, W, 4) uint8 RGBA.
    """
    colors, alpha = _layer(values)
    layer: Image = np.dstack([colors, (255 * alpha).round()]).astype(np.uint8)
    return layer


def gallery_page(folder: Path, class_names: Sequence[str], inside: Path = Path()) -> str:
    """Return the page about all overlays of a folder as HTML text."""
    rows = [
        _entry(name, row, folder / inside, class_names)
        for name, row in sorted(read_scores(folder).items())
        if overlay_path(folder, name).is_file()
    ]
    data = {
        "title": folder.resolve().name,
        "classes": list(class_names),
        "colors": [css_color(value) for value in range(1, len(class_names) + 1)],
        "full": FULL_FRAME,
        "images": rows,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    template = files("tag2mask.visualization").joinpath("gallery.html").read_text("utf-8")
    return template.replace(DATA_MARK, text.replace("<", "\\u003c"))


def _entry(name: str, row: Mapping[str, Any], masks: Path, class_names: Sequence[str]) -> list[Any]:
    """Return name, address, uncertainty or None, and class index -> share of one image."""
    areas = row.get("areas")
    if areas is None:
        areas = class_areas(read_mask(masks / f"{name}.png", len(class_names)), class_names)
    shares = {class_names.index(key): round(share, 4) for key, share in areas.items()}
    return [name, quote(f"{name}.jpg"), row.get("uncertainty"), shares]


def shrink(image: Image, mask: Mask, side_px: int) -> tuple[Image, Mask]:
    """Shrink image and mask to a long side of at most `side_px`."""
    height, width = mask.shape
    factor = side_px / max(height, width)
    if factor >= 1:
        return image, mask
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = PILImage.fromarray(image).resize(size, PILImage.Resampling.BILINEAR, reducing_gap=2)
    values = PILImage.fromarray(mask).resize(size, PILImage.Resampling.NEAREST)
    return np.asarray(picture), np.asarray(values)


def _layer(values: Mask) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return the (H, W, 3) colors of a mask with its outlines, and their (H, W) opacity."""
    colors, alpha = colorize(values), np.where(values != BACKGROUND, OPACITY, 0.0)
    border = _border(values, max(1, round(max(values.shape) * OUTLINE_SHARE)))
    outer = border & (values == BACKGROUND)
    colors[outer] = EDGE
    alpha[outer | (border & (values != BACKGROUND) & (values != IGNORE))] = 1.0
    return colors, alpha


def _border(values: Mask, width: int) -> npt.NDArray[np.bool_]:
    """Mark the pixels that have another value within `width` pixels left, right, above or below."""
    border = np.zeros(values.shape, dtype=bool)
    for shift in range(1, width + 1):
        across = values[:, shift:] != values[:, :-shift]
        down = values[shift:] != values[:-shift]
        border[:, shift:] |= across
        border[:, :-shift] |= across
        border[shift:] |= down
        border[:-shift] |= down
    return border


def _is_newer(overlay: Path, mask: Path) -> bool:
    """Return whether an overlay exists and shows the present mask."""
    return overlay.is_file() and overlay.stat().st_mtime >= mask.stat().st_mtime


def _save(overlay: Image, path: Path) -> None:
    """Write an overlay completely or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            PILImage.fromarray(overlay).save(temporary, format="JPEG", quality=QUALITY)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
