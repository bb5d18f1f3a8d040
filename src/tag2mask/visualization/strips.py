"""Sample strips: image, evidence as it is refined and propagated, masks and truth in a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from torch import Tensor

from tag2mask.data.base import Source
from tag2mask.functional.cam import upsample
from tag2mask.inference.postprocessing import MaskOutput, PostProcessor, SelectedMaps, propagate_cam
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.io.files import write_atomically
from tag2mask.methods.build import build_refiner
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.types import Image, Sample
from tag2mask.visualization.affinity_maps import AffinityMaps, ImageMaps, inspect_image
from tag2mask.visualization.panels import (
    Panel,
    draw_strip,
    heat_over,
    legend,
    mask_over,
    stretched,
)


class Stages(NamedTuple):
    """Evidence of an image's tags on its way to a pseudo-label."""

    refined: Tensor
    """(1, 1 + K, H, W) probabilities, background first; as they were where nothing refines."""
    propagated: Tensor | None
    """(1, 1 + K, h, w) probabilities at the grid of the affinity; None where there is none."""
    label: MaskOutput
    title: str
    """Of the label: what it was cut from, where test-time settings do not say."""


def save_strips(
    segmenter: Segmenter, source: Source, indices: Sequence[int], out_dir: Path, step: int
) -> list[Path]:
    """Draw one strip per image; nothing is trained, the network's mode is put back.

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


def strip_panels(
    segmenter: Segmenter, sample: Sample, image_maps: ImageMaps | None = None
) -> list[Panel]:
    """Return the panels of one image under both gates.

    Args:
        segmenter: May be in training; its mode is put back.
        sample: Its mask, where it has one, makes a last panel.
        image_maps: What `inspect_image` saw of the image; None looks.
    """
    image, names = sample.image, segmenter.class_names
    output, affinity_maps = image_maps or inspect_image(segmenter, sample)
    tagged = segmenter.select_classes(output, sample.tags, "tags")
    tags = ", ".join(names[key] for key in tagged) or "no class"
    stages = _stages(segmenter, image, ImageMaps(output, affinity_maps), tagged)
    compute_cam = heat_over(image, _strongest(output, tagged, image))
    panels = [
        Panel(image, "image", note=f"tags: {tags}"),
        Panel(compute_cam, "evidence (CAM)", note="of the tags"),
    ]
    if segmenter.recipe.refiner is not None:
        title = f"refined ({segmenter.recipe.refiner.name})"
        panels.append(_objects(image, stages.refined, title))
    if stages.propagated is not None:
        panels.append(_objects(image, stages.propagated, "propagated"))
    mask = stages.label.mask.cpu().numpy()
    marked = legend(mask, names)
    panels.append(Panel(mask_over(image, mask), stages.title, marked, "all background"))
    panels.append(_prediction(segmenter, image, output))
    if sample.mask is not None:
        marked = legend(sample.mask, names)
        panels.append(Panel(mask_over(image, sample.mask), "truth", marked))
    return panels


def _stages(
    segmenter: Segmenter, image: Image, image_maps: ImageMaps, class_indices: Sequence[int]
) -> Stages:
    """Refine and propagate the evidence of the tags; the label is cut from the last of these.

    Methods without a decoder give the label that the test-time settings ask for.
    """
    output = image_maps.output
    refiner = segmenter.postprocessor.refiner or build_refiner(segmenter.recipe)
    refiner = refiner.to(segmenter.device) if refiner else None
    rgb, selected_cam = image_tensor(image).to(segmenter.device), output.cam[:, list(class_indices)]
    postprocessor = PostProcessor(segmenter.config, refiner, None)
    size = (selected_cam.shape[-2], selected_cam.shape[-1])
    plain = postprocessor(rgb, SelectedMaps(tuple(class_indices), selected_cam, "cam", size))
    spreading = segmenter.config.model_copy(update={"propagate": True})
    propagated = (
        _propagated(image_maps.affinity_maps, selected_cam, spreading.background_score)
        if class_indices
        else None
    )
    label, title = plain, "pseudo-label (refined)"
    if output.logits is None:
        label, title = segmenter.compute_mask(image, output, class_indices), "pseudo-label"
    elif propagated is not None:
        label = postprocessor(rgb, SelectedMaps(tuple(class_indices), propagated, "probs", size))
        title = "pseudo-label (propagated)"
    return Stages(plain.probs, propagated, label, title)


def _propagated(
    affinity_maps: AffinityMaps | None, selected_cam: Tensor, background: float
) -> Tensor | None:
    if affinity_maps is None or affinity_maps.affinity is None:
        return None
    return propagate_cam(
        selected_cam,
        affinity_maps.affinity[None],
        affinity_maps.grid,
        background,
        affinity_maps.radius,
    )


def _prediction(segmenter: Segmenter, image: Image, output: NetworkOutput) -> Panel:
    """The mask of an untagged image, with the probabilities of the classes it was cut from."""
    found = segmenter.select_classes(output, None, "classifier")
    mask = segmenter.compute_mask(image, output, found).mask.cpu().numpy()
    title = "prediction"
    if output.logits is not None:  # the decoder may choose from all classes: tell those it chose
        title = "prediction (decoder)"
        found = tuple(key for key in found if key + 1 in mask)
    names = segmenter.class_names
    scores = tuple((key + 1, f"{names[key]} {output.probs[0, key]:.2f}") for key in found)
    return Panel(mask_over(image, mask), title, scores, "no class found")


def _objects(image: Image, probs: Tensor, title: str) -> Panel:
    """Heat of all that is not background in (1, 1 + K, h, w) probabilities."""
    thing = 1 - upsample(probs[:, :1], image.shape[:2])[0, 0].cpu().numpy()
    note = f"object {thing.min():.2f} to {thing.max():.2f}"
    return Panel(heat_over(image, stretched(thing)), title, note=note)


def _save(strip: PILImage.Image, path: Path) -> None:
    write_atomically(path, lambda temporary: strip.save(temporary, format="PNG"))


def _strongest(
    output: NetworkOutput, class_indices: Iterable[int], image: Image
) -> npt.NDArray[np.float32]:
    """(H, W) largest evidence of some classes at the image's size; zero where there are none."""
    chosen = list(class_indices)
    if not chosen:
        return np.zeros(image.shape[:2], dtype=np.float32)
    maps = upsample(output.cam[:, chosen], image.shape[:2])
    strongest: npt.NDArray[np.float32] = maps[0].amax(dim=0).cpu().numpy()
    return strongest
