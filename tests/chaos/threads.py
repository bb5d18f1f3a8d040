"""Eight threads share one segmenter: every mask is that of one thread, and no tensor changes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tests.chaos.outcome import Outcome, Trial

from tag2mask.config.recipe import parse_recipe
from tag2mask.data.synthetic import Synthetic, SyntheticConfig
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method

THREADS = 8
METHODS = (("rml", 500, 12), ("advcam", 40, 4), ("rib", 40, 4))
"""Method, images in the full and in the short form."""
RECIPE = {
    "backbone": {"name": "tiny", "width": 8},
    "refiner": {"name": "par"},
    "predict": {"scales": [1.0, 0.5]},
}


def run(trial: Trial) -> Outcome:
    """Segment all images in one thread, then in every thread, each in an order of its own."""
    outcome = Outcome(facts={"threads": THREADS, "images": {}})
    for name, full, short in METHODS:
        count = trial.times(full, short)
        source = Synthetic(SyntheticConfig(count=count, val_count=1, size_px=64), "train")
        recipe = parse_recipe(
            RECIPE | {"data": {"name": "synthetic", "classes": source.class_names},
                      "method": {"name": name}}, "chaos")  # fmt: skip
        torch.manual_seed(trial.seed)
        segmenter = Segmenter(build_method(recipe), recipe, "cpu")
        outcome.problems += _problems(segmenter, source, trial.seed)
        outcome.tried += THREADS * count
        outcome.facts["images"][name] = count
        trial.notify(f"{name}: {THREADS} threads x {count} images")
    return outcome


def _problems(segmenter: Segmenter, source: Synthetic, seed: int) -> list[str]:
    samples = [source[index] for index in range(len(source))]
    state = {name: value.clone() for name, value in segmenter.method.state_dict().items()}

    def segment(index: int) -> tuple[np.ndarray, dict[str, float]]:
        one = samples[index]
        made = segmenter.segment(one.image, one.tags if index % 2 else None, name=one.name)
        return made.mask, made.scores

    expected = [segment(index) for index in range(len(samples))]

    def segment_all(thread: int) -> list[str]:
        order = list(range(len(samples)))
        random.Random(f"{seed} {thread}").shuffle(order)
        found = []
        for index in order:
            mask, scores = segment(index)
            if not np.array_equal(mask, expected[index][0]) or scores != expected[index][1]:
                found.append(f"{segmenter.recipe.method.name}, thread {thread}, image {index}")
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        problems = [line for found in pool.map(segment_all, range(THREADS)) for line in found]
    after = segmenter.method.state_dict()
    return problems + [name for name, old in state.items() if not torch.equal(old, after[name])]
