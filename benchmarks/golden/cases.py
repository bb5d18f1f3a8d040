"""What is compared, in the words of the working tree.

A method trains for 24 steps at most, its losses begin early, and it makes masks of shared images.
"""

from __future__ import annotations

from parts import (
    BOTH,
    CAM,
    CLASSIFIER,
    CRF,
    EVEN,
    JITTERED,
    LABEL_CRF,
    LOOSE,
    PAMR,
    PAR,
    SCENES,
    SGD,
    Case,
    Masks,
    by_each_refiner,
    confident,
    labeled,
    predicted,
    pseudo_labels,
    scored,
    small,
    trained,
)

EVERY_STEP = {"log_every": 1, "samples": 1, "evaluate_images": 4}

SHIPPED = (
    Case(
        "shipped_rml",
        {"optim": {"steps": 24}, "run": {**EVERY_STEP, "save_every": 12, "evaluate_every": 12}},
        "rml/synthetic_chaos",
        BOTH,
    ),
    Case(
        "shipped_afa",
        {"optim": {"steps": 24}, "run": EVERY_STEP},
        "afa/synthetic_tiny",
        BOTH,
    ),
    Case(
        "shipped_cam",
        {"optim": {"steps": 24}, "run": EVERY_STEP},
        "cam/synthetic_tiny",
        BOTH,
    ),
    Case(
        "shipped_stages",
        {
            "data": {"count": 12, "val_count": 2},
            "optim": {"steps": 6, "batch_size": 6},
            "run": EVERY_STEP,
        },
        "cam/synthetic_stages",
    ),
    Case(
        "shipped_supervised",
        {
            "data": {"size_px": 96, "crop_px": 96},
            "optim": {"steps": 12, "batch_size": 8},
            "run": EVERY_STEP,
        },
        "supervised/synthetic_tiny",
    ),
)
"""Recipes of the package, cut short."""

RML = {"name": "rml", "pooling": "gap", "warmup": 6, "small_scale": 0.5, "small_radius": 4, **EVEN}
AFA = {
    **EVEN,
    "name": "afa",
    "pooling": "gap",
    "warmup": 6,
    "propagate_from": 12,
    "decoder_width": 32,
    "decoder_dropout": 0.0,
    "segmentation_weight": 1.0,
    "foreground_threshold": 0.4,
    "background_threshold": 0.2,
}
ONESTAGE = {
    "name": "onestage",
    "mask_from": 6,
    "mask_weight": 3.0,
    "width": 32,
    "dilations": [2, 4],
    "background_peak_fraction": 0.5,
    "min_score": 0.0,
}
RRM = {
    "name": "rrm",
    "warmup": 6,
    "decoder_width": 32,
    "dilation": 3,
    "confidence": 0.4,
    "alpha_high": 8.0,
}
IRN_LABELS = {"name": "irn", "foreground_threshold": 0.5, "background_threshold": 0.1}
PSA_LABELS = {"name": "psa", "foreground_threshold": 1, "background_threshold": 12}
REFERENCES = {"num_reference_images": 4, "reference_px": 32}
SUPERVISED = {
    "name": "supervised",
    "head": "segformer",
    "decoder_width": 32,
    "decoder_dropout": 0.05,
}

PROTOCOLS = (
    Case(
        "rml",
        small(
            RML,
            PAR,
            stages={
                "net": trained(),
                **by_each_refiner("net"),
                "propagated": labeled("net", propagate=True),
                "propagated_par": labeled("net", PAR, propagate=True, background=0.3),
                "one_scale": labeled("net", scales=[1.0], flip=False, background=0.5),
                "no_full_scale": labeled("net", scales=[0.5, 1.5], long_side_px=80),
            },
        ),
        masks=(
            *predicted(),
            Masks("predict_small", "predict", {"predict": {**LOOSE, "max_side_px": 64}}),
            Masks("predict_propagated", "predict", {"predict": {**LOOSE, "propagate": True}}),
        ),
    ),
    Case(
        "rml_switches",
        small(
            RML,
            PAR,
            optim={"steps": 12},
            stages={
                "gmp": trained(method={"pooling": "gmp", "antialias": True, "classify_both": True}),
                "maps": trained(
                    method={"prototype": "cam_grid", "equivariance": "all", "fusion": False}
                ),
                "club": trained(
                    method={"information": "club", "small_affinity": 0.1, "vd_label": False}
                ),
                "cond": trained(method={"information": "kl", "affinity_information": "cond"}),
            },
        ),
    ),
    Case(
        "afa",
        small(
            AFA,
            PAR,
            predict={"long_side_px": 0},
            stages={
                "net": trained(),
                **by_each_refiner("net"),
                "by_default": labeled("net", long_side_px=None, max_side_px=160),
                "from_cam": labeled("net", PAR, protocol="cam"),
                "propagated": labeled("net", protocol="cam", propagate=True),
            },
        ),
        masks=predicted(),
    ),
    Case(
        "afa_switches",
        small(
            AFA,
            PAR,
            optim={"steps": 16},
            predict={"long_side_px": 0},
            stages={
                "energy": trained(method={"energy_weight": 0.01, "pooling": "gmp"}),
                "loss": trained(method={"affinity": "loss", "affinity_target": "propagated"}),
                "attention": trained(method={"refine": "mhsa", "affinity": "propagate"}),
            },
        ),
    ),
    Case(
        "onestage",
        small(
            ONESTAGE,
            PAMR,
            data={**SCENES, "count": 8},
            predict={"scales": [1.0, 0.5]},
            stages={
                "no_focal": trained(method={"focal": False}, optim={"steps": 12}),
                "no_focal_pamr": labeled("no_focal", PAMR),
                "net": trained(),
                **by_each_refiner("net"),
                "by_default": labeled("net", scales=None),
            },
        ),
        masks=predicted(),
    ),
)
"""Each protocol with each refiner, classes from tags and from the classifier."""

METHODS = (
    Case(
        "aeft",
        small(
            {"name": "aeft", "pooling": "gpp", "width": 32, "start": 6, "min_hard_pairs": 0},
            optim={
                "head_lr": 3.0e-3,
                "batch_size": 6,
                "late_batch_size": 8,
                "late_from": 6,
                "max_grad_norm": 1.0,
            },
            stages={
                "gap": trained(method={"pooling": "gap"}, optim={"steps": 12}),
                "net": trained(),
                "masks": labeled("net", PAR, background=0.2),
            },
        ),
    ),
    Case(
        "seam",
        small(
            {"name": "seam", "small_scale": 0.5},
            data=JITTERED,
            stages={
                "gpp": trained(method={"pooling": "gpp"}, optim={"steps": 12}),
                "net": trained(),
                "masks": labeled("net", PAR),
            },
        ),
    ),
    Case(
        "rrm",
        small(
            RRM,
            CRF,
            data={**SCENES, "count": 8},
            optim={"head_lr": 2.0e-4},
            predict={"long_side_px": 0},
        ),
        masks=BOTH,
    ),
    Case(
        "supervised",
        small(
            SUPERVISED,
            optim={"accumulate_steps": 2, "head_lr": 1.0e-3},
            predict={"long_side_px": 0},
            run={"precision": "bf16"},
            stages={
                "aspp": trained(method={"head": "aspp", "dilations": [2, 4]}),
                "net": trained(),
            },
        ),
        masks=BOTH,
    ),
    Case(
        "recam",
        small(
            {"name": "recam"},
            LABEL_CRF,
            optim=SGD,
            stages={
                "cam": trained(method=CAM, optim={"steps": 12}),
                "net": trained("cam"),
                "masks": labeled("net"),
            },
        ),
    ),
    Case(
        "oc_cse",
        small(
            {"name": "oc_cse", "epochs": 4},
            optim=SGD,
            stages={
                "cam": trained(method=CAM, optim={"steps": 12}),
                "net": trained("cam"),
                "masks": labeled("net"),
            },
        ),
    ),
)
"""The methods that work in training."""

LABELS = (
    Case(
        "confident",
        small(
            CAM,
            stages={
                "cam": CLASSIFIER,
                "irn_crf": labeled("cam", LABEL_CRF, confident=confident("irn")),
                "psa_crf": labeled("cam", CRF, confident=confident("psa")),
                "irn_plain": labeled("cam", confident=confident("irn", 0.5, 0.1)),
                "psa_par": labeled("cam", PAR, confident=confident("psa", 1, 12)),
            },
        ),
    ),
    Case(
        "psa",
        small(
            {"name": "psa", "walk_steps": 16},
            optim=SGD,
            stages={
                "cam": CLASSIFIER,
                "confident": pseudo_labels("cam", CRF, "psa"),
                "net": trained("cam") | {"labels": "confident"},
                "walk": labeled("net", propagate=True),
                "walk_par": labeled("net", PAR, propagate=True),
                "scores": scored("walk_par"),
            },
        ),
    ),
    Case(
        "irn",
        small(
            {"name": "irn", "walk_steps": 16, "displacement": True},
            stages={
                "cam": CLASSIFIER,
                "confident": pseudo_labels("cam", LABEL_CRF, "irn"),
                "net": trained("cam") | {"labels": "confident"},
                "walk": labeled("net", propagate=True, background=0.25),
                "walk_crf": labeled("net", CRF, propagate=True, background=0.25),
                "scores": scored("walk"),
            },
        ),
    ),
    Case(
        "advcam",
        small(
            CAM,
            stages={
                "cam": CLASSIFIER,
                "masks": labeled("cam")
                | {"method": {"name": "advcam", "iterations": 6, "half_iterations": 3}},
            },
        ),
        masks=(
            Masks(
                "predict",
                "predict",
                {"method": {"name": "advcam", "iterations": 4}, "predict": LOOSE},
            ),
        ),
    ),
    Case(
        "rib",
        small(
            CAM,
            stages={
                "cam": CLASSIFIER,
                "masks": labeled("cam")
                | {"method": {"name": "rib", "iterations": 4, "reference_px": 64, "lr": 1e-3}},
            },
        ),
        masks=(
            Masks(
                "label",
                "label",
                {
                    "method": {
                        "name": "rib",
                        "iterations": 3,
                        "num_reference_images": 4,
                        "reference_px": 32,
                    }
                },
            ),
        ),
    ),
)
"""Labels for later networks, and the methods that work while labeling."""

BACKBONES = {
    "hybrid": {"name": "hybrid", "weights": "none", "depth_multiplier": 0.25},
    "mit": {"name": "mit", "weights": "none", "variant": "b0"},
    "resnet38d": {"name": "resnet38d", "weights": "none", "width": 0.25},
    "hub": {"name": "hub", "weights": "none", "arch": "mobilenet_v1_0.75_224", "stride": 16},
}

CASES: tuple[Case, ...] = (
    *SHIPPED,
    *PROTOCOLS,
    *METHODS,
    *LABELS,
    Case(
        "backbones",
        small(
            {"name": "cam", "pooling": "gmp"},
            optim={"steps": 4, "batch_size": 2},
            stages={
                **{name: trained(backbone=backbone) for name, backbone in BACKBONES.items()},
                "masks": labeled("hub", PAR),
            },
        ),
    ),
)
