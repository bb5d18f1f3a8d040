"""Sample strips: photo, evidence as it is refined and propagated, masks and truth in a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from torch import Tensor

from tag2mask.checkpoint import write_whole
from tag2mask.data.base import Source
from tag2mask.functional.cam import upsample
from tag2mask.methods.base import build_refiner
from tag2mask.prediction.decision import Cutter, Decision, Draft, spread
from tag2mask.prediction.pair_maps import PairMaps, Sight, look_over
from tag2mask.prediction.panels import (
    Panel,
    draw_strip,
    heat_over,
    legend,
    mask_over,
    stretched,
)
from tag2mask.prediction.segmenter import Segmenter, photo_tensor
from tag2mask.prediction.test_time import Look
from tag2mask.types import Image, Sample


class Stages(NamedTuple):
    """Evidence of a photo's tags on its way to a pseudo-label."""

    refined: Tensor
    """(1, 1 + K, H, W) probabilities, background first; as they were where nothing refines."""
    propagated: Tensor | None
    """(1, 1 + K, h, w) probabilities at the grid of the affinity; None where there is none."""
    label: Decision
    title: str
    """Of the label: what it was cut from, where test-time settings do not say."""


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


def strip_panels(segmenter: Segmenter, sample: Sample, sight: Sight | None = None) -> list[Panel]:
    """Return the panels of one photo under both gates.

    Args:
        segmenter: May be in training; its mode is put back.
        sample: Its mask, where it has one, makes a last panel.
        sight: What `look_over` saw of the photo; None looks.
    """
    image, names = sample.image, segmenter.class_names
    seen, pairs = sight or look_over(segmenter, sample)
    tagged = segmenter.choose(seen, sample.tags, "oracle")
    tags = ", ".join(names[key] for key in tagged) or "no class"
    stages = _stages(segmenter, image, Sight(seen, pairs), tagged)
    evidence = heat_over(image, _strongest(seen, tagged, image))
    panels = [
        Panel(image, "photo", note=f"tags: {tags}"),
        Panel(evidence, "evidence (CAM)", note="of the tags"),
    ]
    if segmenter.recipe.refiner is not None:
        title = f"refined ({segmenter.recipe.refiner.name})"
        panels.append(_objects(image, stages.refined, title))
    if stages.propagated is not None:
        panels.append(_objects(image, stages.propagated, "propagated"))
    mask = stages.label.mask.cpu().numpy()
    marked = legend(mask, names)
    panels.append(Panel(mask_over(image, mask), stages.title, marked, "all background"))
    panels.append(_prediction(segmenter, image, seen))
    if sample.mask is not None:
        marked = legend(sample.mask, names)
        panels.append(Panel(mask_over(image, sample.mask), "truth", marked))
    return panels


def _stages(segmenter: Segmenter, image: Image, sight: Sight, keys: Sequence[int]) -> Stages:
    """Refine and propagate the evidence of the tags; the label is cut from the last of these.

    Methods without a decoder give the label that the test-time settings ask for.
    """
    seen = sight.seen
    refiner = segmenter.cutter.refiner or build_refiner(segmenter.recipe)
    refiner = refiner.to(segmenter.device) if refiner else None
    photo, picked = photo_tensor(image).to(segmenter.device), seen.cam[:, list(keys)]
    cutter = Cutter(segmenter.plan, refiner, None)
    size = (picked.shape[-2], picked.shape[-1])
    plain = cutter(photo, Draft(tuple(keys), picked, "evidence", size))
    spreading = segmenter.plan.model_copy(update={"propagate": True})
    propagated = _propagated(sight.pairs, picked, spreading.background_score) if keys else None
    label, title = plain, "pseudo-label (refined)"
    if seen.logit is None:
        label, title = segmenter.settle(image, seen, keys), "pseudo-label"
    elif propagated is not None:
        label = cutter(photo, Draft(tuple(keys), propagated, "probability", size))
        title = "pseudo-label (propagated)"
    return Stages(plain.prob, propagated, label, title)


def _propagated(pairs: PairMaps | None, picked: Tensor, background: float) -> Tensor | None:
    if pairs is None or pairs.affinity is None:
        return None
    return spread(picked, pairs.affinity[None], pairs.grid, background, pairs.radius)


def _prediction(segmenter: Segmenter, image: Image, seen: Look) -> Panel:
    """The mask of an untagged photo, with the probabilities of the classes it was cut from."""
    found = segmenter.choose(seen, None, "predicted")
    mask = segmenter.settle(image, seen, found).mask.cpu().numpy()
    title = "prediction"
    if seen.logit is not None:  # the decoder may choose from all classes: tell those it chose
        title = "prediction (decoder)"
        found = tuple(key for key in found if key + 1 in mask)
    names = segmenter.class_names
    scores = tuple((key + 1, f"{names[key]} {seen.prob[0, key]:.2f}") for key in found)
    return Panel(mask_over(image, mask), title, scores, "no class found")


def _objects(image: Image, prob: Tensor, title: str) -> Panel:
    """Heat of all that is not background in (1, 1 + K, h, w) probabilities."""
    thing = 1 - upsample(prob[:, :1], image.shape[:2])[0, 0].cpu().numpy()
    note = f"object {thing.min():.2f} to {thing.max():.2f}"
    return Panel(heat_over(image, stretched(thing)), title, note=note)


def _save(strip: PILImage.Image, path: Path) -> None:
    write_whole(path, lambda temporary: strip.save(temporary, format="PNG"))


def _strongest(seen: Look, keys: Iterable[int], image: Image) -> npt.NDArray[np.float32]:
    """(H, W) largest evidence of some classes at the photo's size; zero where there are none."""
    chosen = list(keys)
    if not chosen:
        return np.zeros(image.shape[:2], dtype=np.float32)
    maps = upsample(seen.cam[:, chosen], image.shape[:2])
    strongest: npt.NDArray[np.float32] = maps[0].amax(dim=0).cpu().numpy()
    return strongest
