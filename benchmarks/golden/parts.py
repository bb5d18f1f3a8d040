"""What the cases are made of: small scenes, a tiny network, short schedules, stages that label.

All in the words of the working tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

IMAGES = "@IMAGES@"
"""Stands for the folder of shared images; each run puts in its own path."""
Section = dict[str, Any]


class Masks(NamedTuple):
    """One start of `label` or `predict` on the shared images, with the case's network."""

    name: str
    command: Literal["label", "predict"]
    changes: Mapping[str, Any] = {}
    """Sections of the recipe that are changed on the command line; None removes one."""
    scored: bool = False
    """Whether `evaluate` scores these masks."""


class Case(NamedTuple):
    """One run of `train`, and masks of its last network."""

    name: str
    recipe: Mapping[str, Any]
    shipped: str | None = None
    """Recipe of the package that `recipe` is laid over, key by key; None: `recipe` is all."""
    masks: tuple[Masks, ...] = ()


SCENES = {"name": "synthetic", "size_px": 64, "crop_px": 64, "count": 24, "val_count": 6}
SHARED = {"name": "folder", "root": IMAGES, "val_fraction": 0.0}
"""The shared images as a data source."""
JITTERED = {
    **SHARED,
    "crop_px": 64,
    "long_side_min_px": 56,
    "long_side_max_px": 112,
    "jitter": 0.8,
}
TINY = {"name": "tiny", "width": 8}
OPTIM = {"head_lr": 1.0e-2, "steps": 24, "batch_size": 4, "warmup": 0}
SGD = {
    "optimizer": "sgd",
    "lr": 0.01,
    "head_lr": 0.1,
    "weight_decay": 5.0e-4,
    "bias_lr_factor": 2.0,
    "decay_biases": False,
    "power": 0.9,
    "decay_steps": 30,
}
RUN = {"workers": 0, "log_every": 1, "evaluate_every": 12, "save_every": 12, "samples": 0}
EVEN = {"scale_logits": True, "zero_init": True, "label_scales": [1.0, 0.5]}
"""Switches with which affinities learn within few steps."""
CAM = {"name": "cam", "pooling": "gap"}
CLASSIFIER = {"run": "train", "method": CAM, "refiner": None}
"""The stage that other stages begin with."""
PAR = {"name": "par", "iterations": 6}
PAMR = {"name": "pamr", "iterations": 6}
WALK = {"name": "random_walk", "steps": 8}
CRF = {
    "name": "dense_crf",
    "iterations": 4,
    "bilateral_sxy": 20,
    "bilateral_srgb": 13,
    "bilateral_weight": 10,
}
LABEL_CRF = {**CRF, "unary": "label", "confidence": 0.7}
LOOSE = {"fallback": True, "class_threshold": 0.3}
"""Classes are chosen by a classifier that has hardly learned."""
BOTH = (Masks("label", "label", scored=True), Masks("predict", "predict", scored=True))


def small(
    method: Section,
    refiner: Section | None = None,
    *,
    stages: Mapping[str, Section] | None = None,
    data: Section = SCENES,
    optim: Mapping[str, Any] | None = None,
    predict: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A recipe of the tiny network; `optim` and `run` are laid over the short schedule."""
    return {
        "data": data,
        "backbone": TINY,
        "method": method,
        "refiner": refiner,
        "optim": {**OPTIM, **(optim or {})},
        "predict": dict(predict or {}),
        "run": {**RUN, **(run or {})},
        "stages": dict(stages or {}),
    }


def trained(origin: str | None = None, **sections: Section) -> Section:
    """A stage that trains, going on from the network of another where one is named."""
    return {"run": "train", **({"from": origin} if origin else {}), **sections}


def labeled(origin: str, refiner: Section | None = None, **predict: Any) -> Section:
    """A stage that labels the shared images with the network of another stage."""
    return {
        "run": "label",
        "from": origin,
        "data": SHARED,
        "refiner": refiner,
        "predict": {"refine": refiner is not None, **predict},
    }


def confident(
    name: str, foreground: float | None = None, background: float | None = None
) -> Section:
    """How confident pseudo-labels are made, with the method's own thresholds or with these."""
    if foreground is None:
        return {"name": name}
    return {
        "name": name,
        "foreground_threshold": foreground,
        "background_threshold": background,
    }


def pseudo_labels(origin: str, refiner: Section, method: str) -> Section:
    """A stage that labels the images to train on, confident pixels alone."""
    predict = {"confident": confident(method), "refine": True}
    return {"run": "label", "from": origin, "refiner": refiner, "predict": predict}


def scored(origin: str) -> Section:
    """A stage that scores the masks of another."""
    return {"run": "evaluate", "from": origin}


def by_each_refiner(origin: str, **predict: Any) -> dict[str, Section]:
    """Label stages of one network: each refiner, none, and the CRF that finishes."""
    stages = {
        "plain": labeled(origin, **predict),
        "par": labeled(origin, PAR, **predict),
        "pamr": labeled(origin, PAMR, **predict),
        "dense_crf": labeled(origin, CRF, **predict),
        "label_crf": labeled(origin, LABEL_CRF, **predict),
        "random_walk": labeled(origin, WALK, **predict),
        "crf": labeled(origin, crf=True, **predict),
        "par_and_crf": labeled(origin, PAR, crf=True, **predict),
    }
    return {**stages, "par_scores": scored("par"), "crf_scores": scored("crf")}


def predicted(**predict: Any) -> tuple[Masks, ...]:
    """Masks with classes from the classifier: each refiner, none, and the CRF that finishes."""
    loose = {**LOOSE, **predict}
    return (
        Masks("predict_plain", "predict", {"predict": loose, "refiner": None}, scored=True),
        *(
            Masks(f"predict_{one['name']}", "predict", {"predict": loose, "refiner": one})
            for one in (PAR, PAMR, CRF, WALK)
        ),
        Masks("predict_crf", "predict", {"predict": {**loose, "crf": True}}),
    )
