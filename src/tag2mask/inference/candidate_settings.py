"""The settings that turn a network's maps into masks, and the masks that each of them makes.

The network runs once per image; every setting makes its masks from the same output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import RefinerConfig
from tag2mask.inference.candidate_masks import MaskPlan, make_masks
from tag2mask.inference.postprocessing import PostProcessor, image_background, select_maps
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.inference.tuned import Changes
from tag2mask.methods.build import build_final_crf
from tag2mask.methods.protocol import MultiScaleCam, NetworkOutput
from tag2mask.refiners.base import Refiner
from tag2mask.types import Sample

LEVELS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)
"""Background scores to compare."""
SLOW_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""The same behind refiners at the image's size, which take tenths of a second for each."""
Rule = Literal["fixed", "otsu"]


@dataclass(frozen=True, slots=True)
class MaskSetting:
    """One way to make masks from the maps of a trained network."""

    refiner: RefinerConfig | None
    crf: bool
    """Whether a dense CRF at the image's size follows."""
    rule: Rule | None
    """Where the background score comes from; None if the maps bring a background of their own."""
    background: float | None = None
    """Background score of the rule `fixed`."""

    def changes(self, recipe: Recipe) -> Changes:
        """Return what differs from a recipe, in the recipe's own keys."""
        predict: dict[str, Any] = {"refine": self.refiner is not None, "crf": self.crf}
        if self.rule is not None:
            predict["background_rule"] = self.rule
        if self.rule == "fixed":
            predict["background"] = self.background
        own = recipe.predict.model_dump()
        changes: dict[str, dict[str, Any]] = {
            "predict": {key: value for key, value in predict.items() if own[key] != value}
        }
        if self.refiner is not None and self.refiner != recipe.refiner:
            changes["refiner"] = self.refiner.model_dump(mode="json")
        return changes

    def __str__(self) -> str:
        parts = [] if self.rule is None else ["background per image (otsu)"]
        if self.rule == "fixed":
            parts = [f"background {self.background:g}"]
        parts.append("no refiner" if self.refiner is None else f"refiner {self.refiner.name}")
        return ", ".join([*parts, "final CRF"] if self.crf else parts)


def mask_settings(segmenter: Segmenter, *, slow: bool) -> list[MaskSetting]:
    """List the settings to compare, the present one first, then simple ones before others.

    Args:
        segmenter: Its settings are the present ones.
        slow: Also compare refiners at the image's size, such as the dense CRF.
    """
    present = present_setting(segmenter)
    settings = [present]
    for refiner in _refiners(segmenter.recipe, slow):
        at_full_size = refiner is not None and _is_slow(refiner)
        for crf in (False, True) if slow and not at_full_size else (False,):
            if present.rule is None:
                settings.append(MaskSetting(refiner, crf, None))
                continue
            levels = SLOW_LEVELS if crf or at_full_size else LEVELS
            settings += [MaskSetting(refiner, crf, "fixed", level) for level in levels]
            settings.append(MaskSetting(refiner, crf, "otsu"))
    return list(dict.fromkeys(settings))


def present_setting(segmenter: Segmenter) -> MaskSetting:
    """Return the setting that a segmenter has."""
    config, recipe = segmenter.config, segmenter.recipe
    refiner = recipe.refiner if config.refine else None
    if not isinstance(segmenter.protocol, MultiScaleCam) or not config.has_background:
        return MaskSetting(refiner, config.crf, None)
    background = config.background_score if config.background_rule == "fixed" else None
    return MaskSetting(refiner, config.crf, config.background_rule, background)


def _refiners(recipe: Recipe, slow: bool) -> Iterator[RefinerConfig | None]:
    """Yield no refiner, the recipe's own, and all others with their defaults."""
    yield None
    if recipe.refiner is not None and (slow or not _is_slow(recipe.refiner)):
        yield recipe.refiner
    for name in plugins.available("refiners"):
        if recipe.refiner is None or name != recipe.refiner.name:
            config: RefinerConfig = plugins.load("refiners", name).Config(name=name)
            if slow or not _is_slow(config):
                yield config


def _is_slow(config: RefinerConfig) -> bool:
    kind: type[Refiner] = plugins.load("refiners", config.name)
    return kind.at_full_size


class MaskMaker:
    """Makes the masks of one image at every setting.

    Args:
        segmenter: Network and protocol.
        settings: Settings to compare.
    """

    def __init__(self, segmenter: Segmenter, settings: Sequence[MaskSetting]) -> None:
        self._segmenter = segmenter
        self._settings = settings
        groups: dict[tuple[RefinerConfig | None, bool], list[int]] = {}
        for index, setting in enumerate(settings):
            groups.setdefault((setting.refiner, setting.crf), []).append(index)
        self._groups = [
            (self._build(refiner, crf), indices) for (refiner, crf), indices in groups.items()
        ]

    def _build(self, config: RefinerConfig | None, crf: bool) -> tuple[Refiner, ...]:
        """Build the refiners of a setting, in the order of their use."""
        built = []
        if config is not None:
            refiner: Refiner = plugins.load("refiners", config.name)(config)
            built.append(refiner)
        if crf:
            built.append(build_final_crf(self._segmenter.protocol))
        return tuple(refiner.to(self._segmenter.device) for refiner in built)

    def masks(
        self, sample: Sample, output: NetworkOutput, class_indices: tuple[int, ...]
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the position of every setting with its (H, W) uint8 mask, in any order.

        Args:
            sample: The image.
            output: What the network computed for it.
            class_indices: Classes that the masks may contain.
        """
        image = image_tensor(sample.image).to(self._segmenter.device)
        for refiners, indices in self._groups:
            if self._settings[indices[0]].rule is None:
                config = self._segmenter.config
                selected = select_maps(output, class_indices, config.background_score)
                first, second = (*refiners, None, None)[:2]
                yield indices[0], PostProcessor(config, first, second)(image, selected).mask
                continue
            levels = tuple(self._level(at, output, class_indices) for at in indices)
            plan = MaskPlan(self._segmenter.config.propagate, refiners, levels)
            made = make_masks(image, output, class_indices, plan)
            yield from zip(indices, made.masks, strict=True)

    def _level(self, index: int, output: NetworkOutput, class_indices: tuple[int, ...]) -> float:
        """Return the background score of one setting for one image."""
        setting = self._settings[index]
        if setting.background is not None:
            return setting.background
        config = self._segmenter.config.model_copy(update={"background_rule": "otsu"})
        return image_background(output.cam[:, list(class_indices)], config)
