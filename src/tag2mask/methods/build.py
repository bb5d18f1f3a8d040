"""Build the network that a recipe describes."""

from __future__ import annotations

from collections.abc import Mapping

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.methods.base import Method, StageOutputs
from tag2mask.methods.protocol import InferenceProtocol
from tag2mask.models.base import Backbone
from tag2mask.models.batch_norm import share_batch_statistics
from tag2mask.models.initialization import WithoutDraws
from tag2mask.models.weights import license
from tag2mask.refiners.base import Refiner


def build_method(recipe: Recipe, earlier: Mapping[str, Method] | None = None) -> Method:
    """Build a method with its weights, on the CPU; every BatchNorm covers all processes of a run.

    Args:
        recipe: Resolved, classes included.
        earlier: Trained methods of the stages in `recipe.earlier`. None builds these without
            weights, for a network whose weights file contains all that `setup` took from them.

    Raises:
        UnknownPluginError: If a name in the recipe is not a plug-in.
        WeightsError: If the backbone's weights cannot be used.
        RecipeError: If the method needs networks of earlier stages, and the recipe has none.
    """
    backbone = plugins.load("models.backbones", recipe.backbone.name)(recipe.backbone)
    refiner = build_refiner(recipe)
    kind: type[Method] = plugins.load("methods", recipe.method.name)
    method = kind(recipe.method, backbone, recipe.num_foreground, refiner, recipe.optim.steps)
    method.background_score = recipe.predict.background_score
    if earlier is None:
        earlier = {name: build_method(past.blank()) for name, past in recipe.earlier.items()}
    method.setup(StageOutputs(methods=earlier))
    share_batch_statistics(method)
    return method


def build_blank_method(recipe: Recipe) -> Method:
    """Build a method whose weights a file fills completely; no random number is drawn.

    Raises:
        UnknownPluginError: If a name in the recipe is not a plug-in.
    """
    with WithoutDraws():
        return build_method(recipe.blank())


def build_refiner(recipe: Recipe) -> Refiner | None:
    """Build the recipe's refiner, or None if it names none."""
    if recipe.refiner is None:
        return None
    refiner: Refiner = plugins.load("refiners", recipe.refiner.name)(recipe.refiner)
    return refiner


def build_final_crf(protocol: InferenceProtocol) -> Refiner:
    """Build the dense CRF that a protocol ends with; its defaults are the settings of AFA."""
    kind = plugins.load("refiners", "dense_crf")
    crf: Refiner = kind(kind.Config(**protocol.final_crf))
    return crf


def named_license(recipe: Recipe) -> str:
    """Look up the license of the pretrained weights that a recipe names, without reading them."""
    weights = recipe.backbone.weights
    return Backbone.weights_license if weights in (None, "none") else license(weights)
