"""The words that gave way to better ones, as data of the test of the vocabulary."""

import re
from typing import NamedTuple


class Rule(NamedTuple):
    """A word that gave way to a better one, and where it is still right."""

    better: str
    scope: str = "part"
    """part: of a name, key or file name; whole: the complete name; class, def: a complete name of
    that kind; key: a complete key; value: a complete string."""
    allowed: str = ""
    """Pattern of paths where the word is right; each says why."""


GPP = r"gated|pooling|gpp|aeft|onestage|ngwp|ablations|test_stages"
"""GPP and the stochastic gate of 1Stage: `gate` is the papers' own word there."""
NAMES = {
    "evidence": Rule("cam"),
    "photo": Rule("image"),
    "photos": Rule("images"),
    "cell": Rule("position", allowed=r"data/tags|data/test_tags|test_evaluate"),  # of a table
    "cells": Rule("positions", allowed=r"data/tags|test_evaluate"),  # of a table
    "place": Rule("position"),
    "places": Rule("positions"),
    "gate": Rule("class_source", allowed=GPP),
    "gates": Rule("class_source", allowed=GPP),
    "oracle": Rule("tags", allowed=r"^tests/"),  # a test's independent truth is an oracle
    "predicted": Rule("classifier", "value", r"evaluation"),  # predicted masks
    # `dict.keys()` and keys of recipes stay; class indices are no keys.
    "keys": Rule("class_indices", "whole", r"config|cli|api|lattice|mit|recipe|doc|test_"),
    "pick": Rule("select"),
    "picks": Rule("selects"),
    "picked": Rule("selected"),
    "look": Rule("output, view or run"),
    "looks": Rule("outputs or views"),
    "looked": Rule("computed"),
    "sight": Rule("NetworkOutput"),
    "seen": Rule("say what it is"),
    "collect": Rule("predict_multi_scale", "def"),
    "draft": Rule("maps_to_mask"),
    "drafted": Rule("probs"),
    "cutter": Rule("PostProcessor"),
    "cut": Rule("threshold"),
    "cuts": Rule("thresholds"),
    "decide": Rule("postprocess"),
    "decision": Rule("MaskOutput", allowed="specification"),  # R1 to R20
    "examine": Rule("infer"),
    "examined": Rule("InferenceOutput"),
    "present": Rule("build_prediction", "def"),  # the adjective stays: present_classes
    "settle": Rule("resolve_inference_config"),
    "settled": Rule("resolved"),
    "choose": Rule("select_classes", "def"),
    "among": Rule("with_dataset"),
    "accompany": Rule("set_dataset"),
    "company": Rule("DatasetView"),
    "worn": Rule("randomized_batchnorm"),
    "sure": Rule("confident"),
    "stacks": Rule("sets"),
    "survey": Rule("index"),
    "surveys": Rule("indexes"),
    "surveyed": Rule("IndexedDataset"),
    "painting": Rule("synthetic"),
    "painted": Rule("drawn or overlay"),
    "painter": Rule("say the thing"),
    "room": Rule("package", allowed=r"visualization/panels"),
    "rooms": Rule("packages"),
    "doubt": Rule("uncertainty"),
    "fault": Rule("error or problem"),
    "faults": Rule("errors or problems"),
    "judge": Rule("ValidationLoop"),
    "scoreboard": Rule("BestMetric"),
    "tracker": Rule("MetricLogger", allowed=r"training/(test_)?trackers"),  # of experiments
    "downscale": Rule("DownscaledView", "class"),
    "partners": Rule("NegativePairs"),
    "repulsion": Rule("NegativePairs", "class"),  # AEFT's weight keeps its name
    "element": Rule("say the thing", "class"),
    "engine": Rule(
        "training", allowed=r"api|cli/|inference/(test_)?(parts|ray_engine)|chaos/kills"
    ),  # Ray
    "batch": Rule("batch_size", "key", r"types\.py"),  # as a variable it stays
    "accumulate": Rule("accumulate_steps", "key"),
    "clip_norm": Rule("max_grad_norm", "key"),
    "told": Rule("say what it is"),
}
"""Left column of the vocabulary, as it would appear in code."""
IN_SENTENCES = {"among", "cut", "decide", "decision", "place", "room"}
"""Plain English that the names of tests may use, which are sentences."""
FILES = {"settings": "config/schema", "faults": "config/messages", "prediction": "inference"}
"""Modules and packages that moved; complete file or folder names."""
PROSE = {
    r"evidence": "CAM",
    r"photos?": "image",
    r"(?<!make )(?<!makes )sure": "confident",
    r"stacks": "sets of probabilities",
    r"faults?": "error or problem",
    r"doubt": "uncertainty",
    r"rooms|the house": "packages, architecture",
    r"mirror(ed)? images?": "flipped image",
    r"picks?|picked": "select",
    r"looked at|looks? at": "say what is computed",
    r"seen": "say what is computed",
    r"is told|are told|told apart|was told": "say the action",
    r"go(es)? on (from|with|where)|goes on": "resume or continue",
    r"settles?|settled": "resolve or record",
    r"lights? up": "highlight or respond to",
    r"made otherwise|trained otherwise": "with different settings",
    r"what one can name": "the available names",
    r"(is|are) whole|whole already": "complete or finished",
    r"readable JSON": "valid JSON",
    r"gate `?(oracle|predicted)`?": "classes from tags or classifier",
}
"""Phrases of pages, docstrings and comments, at word boundaries."""
PROSE_ALLOWED = {
    r"photos?": r"^(README|docs/licenses)",  # speaks to a person; addresses of pictures
    r"picks?|picked": r"specification",  # describes the papers' code
}
SPELLING = {
    r"optimis": "optimiz",
    r"normalis": "normaliz",
    r"colour": "color",
    r"licence": "license",
    r"labell": "label",
    r"behaviour": "behavior",
    r"neighbour": "neighbor",
    r"favour": "favor",
    r"centre": "center",
    r"\bgrey": "gray",
    r"penalis": "penaliz",
    r"initialis": "initializ",
    r"visualis": "visualiz",
    r"serialis": "serializ",
    r"synchronis": "synchroniz",
    r"generalis": "generaliz",
    r"recognis": "recogniz",
    r"summaris": "summariz",
    r"minimis": "minimiz",
    r"maximis": "maximiz",
    r"\banalyse": "analyze",
    r"modell(ed|ing)": "model",
    r"artefact": "artifact",
    r"\bcatalogue": "catalog",
    r"(?<!was_)cancell(ed|ing)": "cancel",  # was_cancelled is a key of Label Studio
}
"""British stem -> American, anywhere in a text file."""
ANY_PROSE = re.compile(rf"\b(?:{'|'.join(PROSE)})\b", re.IGNORECASE)
ANY_SPELLING = re.compile("|".join(SPELLING), re.IGNORECASE)
