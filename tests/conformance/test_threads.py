"""One segmenter serves many threads: results are those of one thread, and nothing in it changes.

`benchmarks/chaos/threads.py` does the same on 500 images.
"""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conformance.stand_ins import (
    METHODS,
    SMALL_VIT,
    randomized_batchnorm,
    small_method,
    small_recipe,
)

from tag2mask.checkpoint import save_weights
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.base import Method
from tag2mask.training.seeding import rng_state
from tag2mask.types import Prediction

THREADS = 4
IMAGES = 6
FEW = {
    "advcam": {"iterations": 3, "half_iterations": 2},
    "rib": {"iterations": 2, "lr": 1e-4, "max_coverage": 1.0},
}
VIT = {"name": "vit", "arch": SMALL_VIT}


def segmenter(name: str, **words: Any) -> Segmenter:
    method = small_method(name, **words, **FEW.get(name, {}))
    with torch.no_grad():
        randomized_batchnorm(method)
    recipe = small_recipe(name, **words, **FEW.get(name, {}))
    predict = recipe.predict.model_copy(update={"scales": (1.0, 0.5), "long_side_px": 64})
    return Segmenter(method.train(), recipe.model_copy(update={"predict": predict}), "cpu")


def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    sizes = [(48, 64), (64, 48), (33, 47)]
    return [
        random.integers(0, 256, (*sizes[index % 3], 3), dtype=np.uint8) for index in range(IMAGES)
    ]


def segment(one: Segmenter, position: int, image: np.ndarray) -> Prediction:
    tags = np.roll(np.array([1, 0, position % 2], dtype=np.uint8), position)
    if position % 3 == 2:  # settings of one call build another segmenter on the same network
        return one.predict(image, background=0.3, keep_cam=True)
    return one.segment(image, tags, keep_cam=True, name=str(position))


def differences(one: Segmenter) -> list[str]:
    """What threads do otherwise than one thread, and what they leave changed."""
    work = list(enumerate(images()))
    state = {name: value.clone() for name, value in one.method.state_dict().items()}
    traits = [
        (part.training, part.__dict__.keys()) for part in one.method.modules()
    ]  # no attribute is added either
    expected = [segment(one, *item) for item in work]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda item: segment(one, *item), work))
    problems = [
        f"image {position}"
        for position, (mine, other) in enumerate(zip(found, expected, strict=True))
        if not (
            np.array_equal(mine.mask, other.mask)
            and np.array_equal(mine.cam, other.cam)
            and mine.scores == other.scores
        )
    ]
    after = one.method.state_dict()
    problems += [name for name, value in state.items() if not torch.equal(after[name], value)]
    if traits != [(part.training, part.__dict__.keys()) for part in one.method.modules()]:
        problems.append("modes or attributes")
    if any(parameter.grad is not None for parameter in one.method.parameters()):
        problems.append("gradients")
    return problems


@pytest.mark.parametrize(
    "name",
    [name if name == "rml" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS],
)
def test_threads_make_the_masks_of_one_thread(name: str) -> None:
    assert differences(segmenter(name)) == []


@pytest.mark.parametrize("name", ["rib", "rml"])
def test_threads_share_a_vision_transformer(name: str) -> None:
    assert differences(segmenter(name, backbone=VIT)) == []


@pytest.mark.parametrize("name", METHODS)
def test_loading_draws_no_random_number(name: str, tmp_path: Path) -> None:
    saved = segmenter(name)
    path = tmp_path / "weights" / "best.safetensors"
    recipe = saved.recipe
    if type(saved.method).setup is not Method.setup:  # it starts from a trained network
        recipe = recipe.model_copy(update={"earlier": {"cam": small_recipe("cam")}})
    save_weights(path, saved.method.state_dict(), recipe)
    before = rng_state()
    loaded = Segmenter.load(tmp_path, device="cpu")
    assert rng_state() == before
    image = images()[0]
    again = pickle.loads(pickle.dumps(loaded))
    copied = copy.deepcopy(loaded)
    for one in (loaded, again, copied):
        assert np.array_equal(one.predict(image).mask, saved.predict(image).mask)
