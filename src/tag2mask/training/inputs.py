"""What a training reads: its images, and the networks of earlier stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.config.schema import DataConfig, MethodConfig
from tag2mask.data.base import Source
from tag2mask.data.pseudo_labels import PseudoLabelDataset
from tag2mask.data.transforms import BLACK, Color
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


def training_source(config: DataConfig) -> Source:
    """Open the training images, with the masks of `config.labels` if it names a folder."""
    source: Source = plugins.load("data", config.name)(config, "train")
    return source if config.labels is None else PseudoLabelDataset(source, config.labels)
