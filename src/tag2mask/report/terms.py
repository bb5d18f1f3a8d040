"""Plain words for the names in logs and settings, with the paper's term in brackets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Term(NamedTuple):
    """How the page writes a name."""

    label: str
    explanation: str = ""


WORDS: Mapping[str, Term] = {
    "affinity": Term(
        "affinity",
        "How likely two positions of an image show the same class, from 0 to 1.",
    ),
    "attention": Term(
        "attention",
        "How much the network looks at one position of an image while it describes another. An "
        "attention head is one of several such views that a network keeps side by side; a block "
        "is one of its layers and has several heads.",
    ),
    "background": Term("background", "Everything in an image that belongs to no class."),
    "backbone": Term(
        "backbone", "The network that was trained before on other images and looks at yours first."
    ),
    "calibration": Term(
        "calibration",
        "Whether probabilities mean what they say: of everything that the network is 80 % sure of, "
        "80 % should be right.",
    ),
    "calibration_error": Term(
        "calibration error (ECE)",
        "The average gap between what the network says and how often it is right; 0 is best.",
    ),
    "cam": Term(
        "map of a class (class activation map, CAM)",
        "A picture of where the network finds a class. It is bright at the most telling part of an "
        "object, and a threshold turns it into a mask.",
    ),
    "class": Term("class", "One kind of object, such as cat. Each class has one color."),
    "class_source": Term(
        "classes from tags, classes from the classifier",
        "Who says which classes a mask may show: the tags of the image, or the network itself, "
        "which can also be wrong about that. The two kinds of scores cannot be compared.",
    ),
    "class_threshold": Term(
        "class threshold",
        "Probability from which the network says that an image shows a class.",
    ),
    "confusion": Term(
        "confusion",
        "Which class the pixels of each true class got. A perfect network has 100 in the framed "
        "fields and nothing elsewhere.",
    ),
    "crf": Term(
        "dense CRF", "A slow last step that moves the borders of a mask to edges of the image."
    ),
    "empty_mask": Term(
        "empty mask", "A mask that shows no object, although the image should show one."
    ),
    "fallback": Term(
        "keep the most likely class",
        "An image in which no class passes the class threshold still gets its most likely one.",
    ),
    "flip": Term("flip", "Whether the network also sees each image mirrored."),
    "full_frame": Term("full-frame mask", "A mask whose classes cover at least 95 % of the image."),
    "held_out": Term(
        "held-out images",
        "Images that were kept away from training, so that they show how the network does on new "
        "ones.",
    ),
    "image_limit": Term("image limit", "Largest number of images that were scored."),
    "iou": Term(
        "overlap with the true mask (intersection over union, IoU)",
        "Pixels that mask and true mask share, divided by all pixels that either of them covers. "
        "100 % is a perfect copy. A mask that contains the whole object and is twice as large gets "
        "50 %.",
    ),
    "learning_rate": Term(
        "learning rate",
        "How far one step changes the network; it falls towards the end.",
    ),
    "loss": Term(
        "loss", "What training makes smaller: a measure of how wrong the network is at one task."
    ),
    "mask": Term("mask", "The class of each pixel of an image: filled outlines of its objects."),
    "max_side": Term("largest side", "Images larger than this are shrunk before masks are made."),
    "median": Term("median", "The middle one of all values: half are smaller, half are larger."),
    "method": Term(
        "method",
        "The published way to learn masks from tags, named after its paper. End to end means in "
        "one training; a decoder is a part of a network that turns descriptions into masks.",
    ),
    "miou": Term(
        "average overlap (mean IoU, mIoU)",
        "The overlap of each class with its true masks (IoU), averaged over the classes and "
        "background. 100 % is a perfect copy of the true masks.",
    ),
    "negative": Term("negative", "An image without tags: it is known to show none of the classes."),
    "propagation": Term("propagation", "Spreads the map of a class to positions of high affinity."),
    "protocol": Term(
        "inference protocol", "How maps of several sizes of an image become one mask."
    ),
    "pseudo_label": Term(
        "pseudo-label", "A mask that the network made itself and that training then learns from."
    ),
    "recipe": Term("recipe", "The file with all settings of a run."),
    "refiner": Term(
        "refiner",
        "A step after the network that moves borders of a mask to edges of the image.",
    ),
    "scales": Term("scales", "Sizes at which the network sees each image, as factors."),
    "score": Term("score", "A measure of how good masks or tags are; larger is better."),
    "seed": Term("seed", "The start of the random numbers; the same seed gives the same choice."),
    "side": Term("long side", "Longer side in pixels of the image that the network sees."),
    "split": Term("split", "The list or part of the data whose images were used."),
    "stage": Term("stage", "One part of a training with several; each uses those before it."),
    "step": Term("step", "One change of the network, learned from a few images at a time."),
    "tag": Term("tag", "The name of a class that an image shows, without saying where."),
    "tag_map": Term(
        "mean average precision (mAP) of the tags",
        "How well the network sorts images by whether they show a class; 100 % is perfect. It says "
        "what the network recognizes, not where, so it is no measure of masks.",
    ),
    "threshold": Term(
        "background threshold",
        "Where the map of every class is below this value, a pixel becomes background. A higher "
        "threshold makes objects smaller.",
    ),
    "true_mask": Term(
        "true mask", "A mask drawn or corrected by a person (ground truth), to compare masks with."
    ),
    "uncertainty": Term(
        "uncertainty",
        "How unreliable a mask probably is, from 0 to 1, estimated without a true mask: how much "
        "it changes if the image is flipped, resized or refined, and how undecided its pixels are. "
        "It sorts images; it is not the probability of an error.",
    ),
    "view": Term(
        "view",
        "The same image once more, shrunk, mirrored or changed in color; the network shall say the "
        "same of all views.",
    ),
    "weights": Term("weights", "The numbers that a network has learned, and their file."),
}
"""Terms that the page links to their explanation."""

PHRASES: Mapping[str, str] = {
    "background threshold": "threshold",
    "calibration error": "calibration_error",
    "classes from classifier": "class_source",
    "classes from tags": "class_source",
    "classes from the classifier": "class_source",
    "held-out images": "held_out",
    "maps": "cam",
    "mIoU": "miou",
    "mean average precision": "tag_map",
    "random seed": "seed",
    "refiner": "refiner",
    "steps": "step",
    "tagged images": "tag",
    "true masks": "true_mask",
    "uncertain": "uncertainty",
}
"""What finished sentences call a term, and its key in `WORDS`."""

LOSSES: Mapping[str, Term] = {
    "classification": Term("image classification", "Which classes does the image show?"),
    "ciml": Term(
        "agreement of CAMs, difference of classes (CIML)",
        "Two views of an image shall give the same maps, and classes shall differ.",
    ),
    "mfml": Term(
        "agreement of multi-scale features (MFML)",
        "Two views of an image shall be described alike at all sizes.",
    ),
    "apml": Term(
        "affinity from pseudo-labels (APML)",
        "Positions of one class in the pseudo-label shall be described alike.",
    ),
    "club_fit": Term(
        "fit of the mutual-information estimator (CLUB)",
        "Trains the part that measures what two views share.",
    ),
    "segmentation": Term("pixel classification", "Which class does each pixel show?"),
    "affinity": Term("affinity", "Which positions belong to the same class?"),
    "energy": Term(
        "dense energy", "Pixels of like color that are near each other shall have one class."
    ),
    "er": Term("equivariance of CAMs (ER)", "The map of a shrunk image shall be the shrunk map."),
    "ecr": Term("equivariance across CAMs (ECR)", "The same, between raw maps and refined ones."),
    "min_pooling": Term(
        "weakest CAM pixels (min pooling)", "Maps of absent classes shall be empty."
    ),
    "displacement": Term(
        "displacement to the object center", "Which way is the center of the object?"
    ),
    "class_erasing": Term(
        "erased class (OC-CSE)", "With a class erased, a second network shall no longer find it."
    ),
    "reactivation": Term(
        "softmax reactivation (ReCAM)", "Each class alone in its map shall be told from all others."
    ),
    "attraction": Term(
        "agreement with the erased image (attraction)",
        "An image shall be described alike after its most telling part is erased.",
    ),
    "repulsion": Term(
        "difference from negative images (repulsion)",
        "An image without an object shall be described differently from one with it.",
    ),
    "mask": Term("self-supervised masks", "The network learns from its own confident pixels."),
    "true_masks": Term("true masks", "Which class does each pixel of a true mask show?"),
    "sum": Term("total", "All losses together, as training adds them."),
}
"""Losses, by their names in the log."""

MONITORS: Mapping[str, Term] = {
    "equivariance": Term(
        "difference of the CAMs of both views (equivariance)",
        "How much the maps of two views differ on average, on a scale to 1; 0 is perfect.",
    ),
    "prototype_similarity": Term(
        "similarity of different classes (prototype similarity)",
        "How alike the average descriptions (prototypes) of two classes are; lower is better.",
    ),
    "empty_cams": Term(
        "tags with an empty CAM",
        "Share of tags whose CAM is 0 everywhere; the loss cannot train these CAMs.",
    ),
    "alignment": Term(
        "difference of the features of both views (alignment)",
        "How differently the network describes two views (their features); 0 is perfect.",
    ),
    "context_information": Term(
        "shared information of both views (mutual information)",
        "How much one view tells about the other, estimated from their descriptions.",
    ),
    "affinity": Term("affinity loss, before its weight", "The loss of the same name."),
    "affinity_information_loss": Term(
        "information loss of the affinities, before its weight",
        "How differently the affinities of both views tell about the pseudo-label.",
    ),
    "segmentation": Term(
        "pixel classification loss, before its weight", "The loss of the same name."
    ),
    "class_erasing": Term("erased-class loss, before its weight", "The loss of the same name."),
    "reactivation": Term("reactivation loss, before its weight", "The loss of the same name."),
    "attraction": Term("attraction loss, before its weight", "The loss of the same name."),
    "repulsion": Term("repulsion loss, before its weight", "The loss of the same name."),
    "ignored_pixels": Term(
        "ignored pixels", "Share of pixels that the label leaves out as uncertain."
    ),
    "background_threshold": Term(
        "threshold of certain background",
        "What is below it, training takes for background; it follows the maps of the network.",
    ),
    "classification_ratio": Term(
        "classification loss over that of guessing",
        "How wrong the network is about the tags: 1 is a guess by how frequent they are. The other "
        "losses start when it falls below 0.45.",
    ),
    "erased": Term("erased pixels", "Share of pixels that the erased image hides."),
    "hard_pairs": Term(
        "hard negative pairs", "Pairs of images that differ in a class but are described alike."
    ),
    "grad_norm": Term(
        "size of a step, before its limit (gradient norm)",
        "Sudden peaks mean that training is unstable.",
    ),
    "background": Term("background pairs", "Affinity loss of pairs of background positions."),
    "foreground": Term("object pairs", "Affinity loss of pairs of positions of one object class."),
    "different": Term(
        "pairs of different classes", "Affinity loss of pairs of positions of different classes."
    ),
    "complete_images": Term(
        "images with a complete pseudo-label",
        "Share of images whose pseudo-label contains every tag.",
    ),
}
"""Monitored values, by their names in the log."""

LEARNING_RATES: Mapping[str, Term] = {
    "base": Term("pretrained weights (base)", "The part that was trained before."),
    "head": Term("new weights (head)", "The part that is new in this training."),
}
"""Parameter groups, by their names in the log."""

SETTINGS: Mapping[str, str] = {
    "split": "split",
    "protocol": "protocol",
    "scales": "scales",
    "flip": "flip",
    "long_side_px": "side",
    "max_side_px": "max_side",
    "background": "threshold",
    "class_threshold": "class_threshold",
    "fallback": "fallback",
    "propagate": "propagation",
    "refiner": "refiner",
    "crf": "crf",
    "weights": "weights",
    "limit": "image_limit",
}
"""Settings one must know to compare scores, in the order of the page, and their words."""

CLASS_SOURCES: Mapping[str, str] = {
    "tags": "classes from tags",
    "classifier": "classes from the classifier",
}


def term(name: str, terms: Mapping[str, Term]) -> Term:
    """Look a name up; a name that is not listed is written with spaces."""
    return terms.get(name) or Term(name.replace("_", " "))
