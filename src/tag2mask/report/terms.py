"""Plain words for the names in logs and settings, with the paper's term in brackets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Term(NamedTuple):
    """How the page writes a name."""

    label: str
    explanation: str = ""


LOSSES: Mapping[str, Term] = {
    "classification": Term("image classification"),
    "ciml": Term("agreement of CAMs, difference of classes (CIML)"),
    "mfml": Term("agreement of multi-scale features (MFML)"),
    "apml": Term("affinity from pseudo-labels (APML)"),
    "club_fit": Term("fit of the mutual-information estimator (CLUB)"),
    "segmentation": Term("pixel classification"),
    "affinity": Term("affinity"),
    "energy": Term("dense energy"),
    "er": Term("equivariance of CAMs (ER)"),
    "ecr": Term("equivariance across CAMs (ECR)"),
    "min_pooling": Term("weakest CAM pixels (min pooling)"),
    "displacement": Term("displacement to the object center"),
    "class_erasing": Term("erased class (OC-CSE)"),
    "reactivation": Term("softmax reactivation (ReCAM)"),
    "attraction": Term("agreement with the erased image (attraction)"),
    "repulsion": Term("difference from negative images (repulsion)"),
    "mask": Term("self-supervised masks"),
    "sum": Term("total"),
}
"""Losses, by their names in the log."""

MONITORS: Mapping[str, Term] = {
    "equivariance": Term(
        "difference of the CAMs of both views (equivariance)",
        "Mean absolute difference of the normalized CAMs; 0 is perfect agreement.",
    ),
    "prototype_similarity": Term(
        "similarity of different classes (prototype similarity)",
        "Mean cosine similarity of class prototypes, summed over both views; lower is better.",
    ),
    "empty_cams": Term(
        "tags with an empty CAM",
        "Share of tags whose CAM is 0 everywhere; the loss cannot train these CAMs.",
    ),
    "alignment": Term(
        "difference of the features of both views (alignment)",
        "Mean absolute difference of the fused multi-scale features.",
    ),
    "context_information": Term(
        "shared information of both views (mutual information)",
        "Estimated from the fused multi-scale features.",
    ),
    "affinity": Term("affinity loss, before its weight"),
    "affinity_information_loss": Term("information loss of the affinities, before its weight"),
    "segmentation": Term("pixel classification loss, before its weight"),
    "class_erasing": Term("erased-class loss, before its weight"),
    "reactivation": Term("reactivation loss, before its weight"),
    "attraction": Term("attraction loss, before its weight"),
    "repulsion": Term("repulsion loss, before its weight"),
    "ignored_pixels": Term(
        "ignored pixels", "Share of pixels that the label leaves out as uncertain."
    ),
    "background_threshold": Term(
        "threshold of certain background",
        "Background score that follows the CAMs; the foreground threshold keeps its distance.",
    ),
    "classification_ratio": Term(
        "classification loss over that of guessing",
        "The other losses start when it falls below 0.45; 1 is a guess by the frequency of tags.",
    ),
    "erased": Term("erased pixels", "Share of pixels that the erased image hides."),
    "hard_pairs": Term("hard negative pairs"),
    "background": Term("background"),
    "foreground": Term("foreground"),
    "different": Term("pairs of different classes"),
    "complete_images": Term(
        "images with a complete pseudo-label",
        "Share of images whose pseudo-label contains every tag.",
    ),
}
"""Monitored values, by their names in the log."""

LEARNING_RATES: Mapping[str, Term] = {
    "base": Term("pretrained weights (base)"),
    "head": Term("new weights (head)"),
}
"""Parameter groups, by their names in the log."""

SETTINGS: Mapping[str, str] = {
    "split": "split",
    "protocol": "inference protocol",
    "scales": "scales",
    "flip": "flip",
    "long_side_px": "long side (px)",
    "max_side_px": "largest side (px)",
    "background": "background threshold",
    "class_threshold": "class threshold",
    "fallback": "keep the most likely class",
    "propagate": "propagation",
    "refiner": "refiner",
    "crf": "CRF",
    "weights": "weights",
    "limit": "image limit",
}
"""Settings one must know to compare scores, in the order of the page."""

CLASS_SOURCES: Mapping[str, str] = {
    "tags": "classes from tags",
    "classifier": "classes from the classifier",
}


def term(name: str, terms: Mapping[str, Term]) -> Term:
    """Look a name up; a name that is not listed is written with spaces."""
    return terms.get(name) or Term(name.replace("_", " "))
