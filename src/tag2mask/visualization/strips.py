"""Strips: the panels of one image in a row, from the image over its CAM to its masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from torch import Tensor

from tag2mask.functional.cam import upsample
from tag2mask.inference.inspection import ImageMaps, inspect_image
from tag2mask.inference.label_stages import compute_label_stages
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import write_atomically
from tag2mask.types import Image, Sample
from tag2mask.visualization.heat_maps import overlay_heat, stretch
from tag2mask.visualization.panels import (
    CAPTION_PX,
    PAPER,
    Panel,
    caption_width,
    draw_panel,
    mask_legend,
    overlay_mask,
)

PICTURE_HEIGHT_PX = 168
PANEL_MAX_WIDTH_PX = 320
GAP_PX = 6
LABEL_TITLES = {
    "settings": "pseudo-label",
    "refined": "pseudo-label (refined)",
    "propagated": "pseudo-label (propagated)",
}


def save_strips(
    segmenter: Segmenter, samples: Iterable[Sample], out_dir: Path, step: int
) -> list[Path]:
    """Draw one strip per sample and save it; trains nothing.

    Args:
        segmenter: Its network sees the images.
        samples: Read one at a time. A sample's mask, where it has one, becomes the last panel.
        out_dir: Created if missing.
        step: Part of the file names, so that the strips of several steps sort by time.

    Returns:
        The PNG files written, in the order of `samples`.

    Raises:
        RunError: If a file cannot be written.
    """
    paths = []
    for position, sample in enumerate(samples):
        strip = draw_strip(strip_panels(segmenter, sample, inspect_image(segmenter, sample)))
        safe_name = re.sub(r"[^\w.-]+", "_", sample.name)
        path = out_dir / f"step{step:06d}_{position:02d}_{safe_name}.png"
        _save(strip, path)
        paths.append(path)
    return paths


def draw_strip(panels: Sequence[Panel], page_px: int | None = None) -> PILImage.Image:
    """Draw panels of one image side by side with their captions.

    Args:
        panels: Their pictures have one size.
        page_px: Width to which a page shrinks a wider strip; its captions stay readable there.
    """
    height, width = panels[0].picture.shape[:2]
    factor = min(PICTURE_HEIGHT_PX / height, PANEL_MAX_WIDTH_PX / width)
    size = (max(72, round(width * factor)), max(24, round(height * factor)))
    widths = _panel_widths(panels, size[0], 1.0)
    scale = max(1.0, _strip_width(widths) / page_px) if page_px is not None else 1.0
    if scale > 1:
        widths = _panel_widths(panels, size[0], scale)
    caption = round(CAPTION_PX * scale)
    canvas = PILImage.new("RGB", (_strip_width(widths), size[1] + caption + 2 * GAP_PX), PAPER)
    left = GAP_PX
    for panel, panel_width in zip(panels, widths, strict=True):
        canvas.paste(draw_panel(panel, size, panel_width, scale), (left, GAP_PX))
        left += panel_width + GAP_PX
    return canvas


def _panel_widths(panels: Sequence[Panel], picture_px: int, scale: float) -> list[int]:
    """Return the width of each panel: that of its picture or its caption, within limits."""
    longest = [max(picture_px, caption_width(panel, scale)) for panel in panels]
    return [min(one, PANEL_MAX_WIDTH_PX) for one in longest]


def _strip_width(widths: Sequence[int]) -> int:
    return sum(widths) + (len(widths) + 1) * GAP_PX


def strip_panels(segmenter: Segmenter, sample: Sample, image_maps: ImageMaps) -> list[Panel]:
    """Return the panels of one image, with classes from its tags and from the classifier.

    Args:
        segmenter: Its network sees the images.
        sample: Its mask, where it has one, becomes the last panel.
        image_maps: What `inspect_image` computed for the sample.
    """
    image, names = sample.image, segmenter.class_names
    output = image_maps.output
    tagged = segmenter.select_classes(output, sample.tags, "tags")
    tags = ", ".join(names[index] for index in tagged) or "no class"
    stages = compute_label_stages(segmenter, image, image_maps, tagged)
    panels = [
        Panel(image, "image", note=f"tags: {tags}"),
        Panel(cam_heat(image, output.cam, tagged), "CAM", note="of the tags"),
    ]
    if segmenter.recipe.refiner is not None:
        title = f"refined CAM ({segmenter.recipe.refiner.name})"
        panels.append(_foreground_panel(image, stages.refined, title))
    if stages.propagated is not None:
        panels.append(_foreground_panel(image, stages.propagated, "propagated CAM"))
    mask = stages.label.mask.cpu().numpy()
    title, legend = LABEL_TITLES[stages.label_source], mask_legend(mask, names)
    panels.append(Panel(overlay_mask(image, mask), title, legend, "all background"))
    panels.append(_prediction_panel(segmenter, image, image_maps))
    if sample.mask is not None:
        legend = mask_legend(sample.mask, names)
        panels.append(Panel(overlay_mask(image, sample.mask), "ground truth", legend))
    return panels


def cam_heat(image: Image, cam: Tensor, class_indices: Sequence[int]) -> Image:
    """Draw the largest of the (1, F, h, w) CAMs of some classes; 0 everywhere without classes."""
    if not class_indices:
        return overlay_heat(image, np.zeros(image.shape[:2], dtype=np.float32))
    selected_cam = upsample(cam[:, list(class_indices)], image.shape[:2])
    return overlay_heat(image, selected_cam[0].amax(dim=0).cpu().numpy())


def _foreground_panel(image: Image, probs: Tensor, title: str) -> Panel:
    """Draw the foreground probability of (1, 1 + K, h, w) probabilities as heat."""
    foreground = 1 - upsample(probs[:, :1], image.shape[:2])[0, 0].cpu().numpy()
    note = f"foreground {foreground.min():.2f} to {foreground.max():.2f}"
    return Panel(overlay_heat(image, stretch(foreground)), title, note=note)


def _prediction_panel(segmenter: Segmenter, image: Image, image_maps: ImageMaps) -> Panel:
    """Draw the mask with classes from the classifier, and the probabilities of its classes."""
    output = image_maps.output
    selected = segmenter.select_classes(output, None, "classifier")
    mask = segmenter.compute_mask(image, output, selected).mask.cpu().numpy()
    title = "prediction"
    if output.logits is not None:  # a decoder selects from all classes: list those in the mask
        title = "prediction (decoder)"
        selected = tuple(index for index in selected if index + 1 in mask)
    names = segmenter.class_names
    probs = tuple((index + 1, f"{names[index]} {output.probs[0, index]:.2f}") for index in selected)
    return Panel(overlay_mask(image, mask), title, probs, "no class")


def _save(strip: PILImage.Image, path: Path) -> None:
    write_atomically(path, lambda temporary: strip.save(temporary, format="PNG"))
