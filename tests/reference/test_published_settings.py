"""Recipes train with the published settings of their methods, as the specification states them."""

from __future__ import annotations

from typing import Any

import pytest

from tag2mask.config.recipe import Recipe, available_recipes, load_recipe, stage_recipe

PADDED_WITH_THE_MEAN = ("psa", "irn", "seam", "aeft", "oc_cse", "advcam", "rib", "recam")
"""Methods whose code pads crops after it normalizes them (Specification 2.10)."""
ALSO_PADDED = (
    *("cam/animals_mobilenet", "cam/voc_resnet38d", "cam/coco_resnet38d"),
    "supervised/voc_resnet101",
)
"""The baselines of AEFT, and DeepLab."""
AS_THE_IMAGE = {
    "data.long_side_min_px": None,
    "data.long_side_max_px": None,
    "data.scale_min": 1.0,
    "data.scale_max": 1.0,
}
RECAM = {
    "optim.optimizer": "sgd",
    "optim.momentum": 1e-4,
    "optim.weight_decay": 1e-4,
    "optim.power": 0.9,
    "optim.warmup": 0,
}
PSA_CLASSIFIER = {"method.xavier": True, "method.dropout": 0.5}
DROPOUT = {"backbone.dropout_b6": 0.3, "backbone.dropout_b7": 0.5}
PUBLISHED: list[tuple[str, str | None, dict[str, Any]]] = [
    ("recam/voc_resnet50", "recam", RECAM | {"optim.lr": 5e-5, "optim.head_lr": 5e-4}),
    ("recam/animals_mobilenet", "recam", RECAM),
    ("psa/voc_resnet38d", "cam", PSA_CLASSIFIER | {"optim.steps": 9915}),
    ("psa/voc_resnet38d", "psa", AS_THE_IMAGE | {"data.crop_px": 448, "optim.steps": 10576}),
    ("psa/animals_mobilenet", "psa", AS_THE_IMAGE),
    ("oc_cse/voc_resnet38d", "cam", PSA_CLASSIFIER),
    ("seam/voc_resnet38d", None, {"optim.steps": 10576, "method.dropout": 0.5}),
    ("aeft/voc_resnet38d", "cls", DROPOUT | PSA_CLASSIFIER | {"optim.lr": 0.1, "optim.head_lr": 1}),
    (
        "aeft/voc_resnet38d",
        "psa",
        AS_THE_IMAGE
        | DROPOUT
        | {
            "data.crop_px": 448,
            "optim.lr": 0.01,
            "optim.head_lr": 0.1,
            "optim.bias_lr_factor": 2.0,
            "optim.steps": 10576,
            "method.start": "cls",
            "method.walk_steps": 64,
            "method.power": 8.0,
            "method.background_power": 19.0,
        },
    ),
    (
        "aeft/voc_resnet38d",
        "walk",
        {
            "refiner.name": "dense_crf",
            "refiner.iterations": 1,
            "refiner.gaussian_sxy": 3,
            "refiner.gaussian_weight": 3,
            "refiner.bilateral_sxy": 80,
            "refiner.bilateral_srgb": 13,
            "refiner.bilateral_weight": 10,
            "predict.refine": True,
        },
    ),
    (
        "aeft/voc_resnet38d",
        "seg",
        DROPOUT
        | {"method.head": "largefov", "method.decoder_width": 512, "method.train_all": True},
    ),
    (
        "seam/voc_resnet38d",
        "psa",
        AS_THE_IMAGE
        | {
            "data.crop_px": 448,
            "optim.steps": 10576,
            "method.walk_steps": 64,
            "method.power": 8.0,
            "method.background_power": 6.0,
        },
    ),
    (
        "seam/voc_resnet38d",
        "seg",
        {
            "method.head": "largefov",
            "data.crop_px": 448,
            "data.scale_min": 0.5,
            "data.scale_max": 1.5,
            "optim.lr": 0.001,
            "optim.head_lr": 0.01,
            "optim.bias_lr_factor": 2.0,
            "optim.momentum": 0.9,
            "optim.weight_decay": 5e-4,
            "optim.steps": 20_000,
            "optim.batch_size": 10,
            "predict.scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        },
    ),
    (
        "rib/coco_resnet50_irn",
        "confident",
        {
            "method.lr": 5e-6,
            "method.num_reference_images": 15,
            "method.gndrp_threshold": 0.5,
            "method.max_logit_sum": 1000,
            "method.max_coverage": 0.8,
        },
    ),
]
"""Recipe, stage and what the specification publishes for it (4.1 to 4.3, 4.6 and 4.9)."""
TIGHT_CROPS = {"data.crop_px": 256, "data.long_side_min_px": 205, "data.long_side_max_px": 410}
"""0.8 to 1.6 times the crop (Specification 2.10)."""


def settings(name: str, stage: str | None) -> Recipe:
    recipe = load_recipe(name)
    return recipe if stage is None else stage_recipe(recipe, stage)


def value(recipe: Recipe, dotted: str) -> object:
    section, key = dotted.split(".")
    return getattr(getattr(recipe, section), key)


@pytest.mark.parametrize(("name", "stage", "expected"), PUBLISHED)
def test_a_stage_trains_as_published(
    name: str, stage: str | None, expected: dict[str, object]
) -> None:
    recipe = settings(name, stage)
    assert {key: value(recipe, key) for key in expected} == expected


IRN_SETTINGS = {
    "irn/voc_resnet50": (0.30, 0.05, 0.25),
    "advcam/voc_resnet50_irn": (0.35, 0.15, 0.25),
    "rib/voc_resnet50_irn": (0.35, 0.17, 0.27),
    "rib/coco_resnet50_irn": (0.35, 0.17, 0.22),
}
"""Thresholds of the confident labels, background score of the final ones (Specification 4.3)."""


@pytest.mark.parametrize(("name", "expected"), IRN_SETTINGS.items())
def test_irn_propagates_the_maps_that_its_labels_are_made_of(
    name: str, expected: tuple[float, float, float]
) -> None:
    recipe = load_recipe(name)
    confident = stage_recipe(recipe, "confident")
    thresholds = confident.predict.confident
    background = stage_recipe(recipe, "walk").predict.background
    assert (thresholds.foreground_threshold, thresholds.background_threshold, background) == (
        expected
    )
    (classifier,) = recipe.stages["irn"].from_
    assert stage_recipe(recipe, classifier).method == confident.method
    assert list(recipe.stages)[-2:] == ["seg", "scores"]


@pytest.mark.parametrize("name", available_recipes())
def test_only_the_psa_family_pads_crops_with_the_mean_color(name: str) -> None:
    recipe = load_recipe(name)
    baseline = name.startswith("cam/") and getattr(recipe.method, "width", 0)  # that of AEFT
    follows = name in ALSO_PADDED or name.split("/")[0] in PADDED_WITH_THE_MEAN
    assert (recipe.data.padding == "mean") == bool(follows or baseline)


LOOSE_CROPS = (
    "cam/animals_hybrid",
    "rml/animals_hybrid",
    "afa/animals_hybrid",
    "rml/animals_rounds",
)
"""The crops that their recorded results have: half to twice the image (Specification 2.10)."""


@pytest.mark.parametrize("name", [name for name in available_recipes() if "animals" in name])
def test_reduced_recipes_show_most_of_an_image(name: str) -> None:
    recipe = load_recipe(name)
    if name in LOOSE_CROPS:
        assert value(recipe, "data.long_side_min_px") is None
        return
    if recipe.method.name == "supervised" and not recipe.stages:
        pytest.skip("as in SegFormer, the scale is 0.5 to 2")
    assert {key: value(recipe, key) for key in TIGHT_CROPS} == TIGHT_CROPS


@pytest.mark.parametrize("name", available_recipes())
def test_the_pyramid_is_coarser_than_the_map_it_pools(name: str) -> None:
    recipe = load_recipe(name)
    if getattr(recipe.method, "pooling", "") == "gpp" or name == "cam/animals_mobilenet":
        stride = getattr(recipe.backbone, "stride", 8)
        assert 2 * recipe.method.gpp.levels[-1] <= recipe.data.crop_px / stride
