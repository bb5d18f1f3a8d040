"""What a training reads: its images, and the networks of earlier stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import DataConfig, MethodConfig
from tag2mask.data.transforms import BLACK, Color
from tag2mask.data.true_masks import TrainingImages, open_training_images
from tag2mask.errors import RunError
from tag2mask.inference.run import Configure, open_run
from tag2mask.methods.base import Method


def load_earlier(recipe: Recipe, folders: Mapping[str, Path]) -> dict[str, Method]:
    """Load the networks of earlier stages that a recipe starts from.

    Another method than the one that trained a network may read it, as its recipe in `earlier` says.
    """
    missing = [name for name in recipe.earlier if name not in folders]
    if missing:
        raise RunError(
            f"the network of stage '{missing[0]}' is missing; run the stages of the recipe with "
            "tag2mask train RECIPE --stage NAME"
        )
    networks = {}
    for name, past in recipe.earlier.items():
        networks[name] = open_run(folders[name], configure=_read_by(past.method)).method
    return networks


def _read_by(method: MethodConfig) -> Configure:
    """Return a function that gives the recipe of a run another method."""
    return lambda recipe: recipe.model_copy(update={"method": method})


def padding_color(config: DataConfig, method: Method) -> Color:
    """Return the color around small images: the mean becomes 0 within half a gray level."""
    if config.padding == "black":
        return BLACK
    red, green, blue = (round(value) for value in method.backbone.mean.flatten().tolist())
    return red, green, blue


def training_images(recipe: Recipe) -> TrainingImages:
    """Open the training images, with the masks that the method of a recipe learns from."""
    kind: type[Method] = plugins.load("methods", recipe.method.name)
    return open_training_images(recipe.data, learns_from_masks=kind.reads_masks)


def describe_masks(images: TrainingImages, config: DataConfig) -> Iterator[str]:
    """Yield how the true masks of some images are used; nothing if none or all have one."""
    if images.true_masks:
        learned, share = len(images.true_masks), config.true_mask_share
        yield f"learns from {learned} true masks, {share:.0%} of each batch"
    elif images.unused_masks:
        yield (
            f"{images.unused_masks} images have true masks, used for scores only; "
            "data.true_masks=train learns from them"
        )
